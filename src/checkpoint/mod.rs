//! Files of weights: Hugging Face directories in and out, and numeric references.

pub mod atomic;
pub mod model_dir;
pub mod reference;
pub mod safetensors;

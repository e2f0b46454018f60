//! Fine-tuning: one optimizer step, and the run around it.

pub mod memory;
pub mod record;
pub mod run;
pub mod step;

//! The transformer: configuration, parameter layout, forward and backward.

pub mod activations;
pub mod backward;
pub mod cache;
pub mod config;
mod config_json;
pub mod forward;
pub mod head;
pub mod layout;
pub mod params;

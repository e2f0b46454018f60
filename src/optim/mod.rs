//! What an optimizer step needs besides gradients: schedules and ranges.

pub mod adamw;
pub mod schedule;

//! Helpers shared by the tests, the benches and `hooke validate`.

pub mod compare;
pub mod fill;
pub mod gradcheck;

//! The one integration binary.

// Test helpers outside `#[test]` functions unwrap too; a panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod chat;
mod checkpoint;
mod cli;
mod config;
#[cfg(feature = "emu")]
mod cuda;
mod data;
#[cfg(feature = "emu")]
mod emu;
mod generate;
mod golden;
mod model;
mod ops;
mod policy;
mod support;
mod tokenizer;
mod train;

//! The one integration binary.

mod bad_input;
mod chat;
mod checkpoint;
mod cli;
mod config;
mod data;
mod generate;
mod golden;
mod model;
mod ops;
mod policy;
mod tokenizer;
mod train;

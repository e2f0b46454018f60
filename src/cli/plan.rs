//! `hooke plan`: the memory of a training run on a GPU, computed without one.

use super::{print_json, print_line};
use crate::checkpoint::model_dir::ModelDir;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::optim::adamw::AdamWConfig;
use crate::optim::states::OptimStates;
use crate::train::memory::{StepLimits, plan, plan_scratch};
use crate::train::run::DEFAULT_MAX_SEQ_LENGTH;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Hugging Face directory of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Rows in a micro-batch, all of full length
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = at_least_one)]
    per_device_train_batch_size: usize,
    /// Micro-batches in an optimizer step
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one)]
    gradient_accumulation_steps: usize,
    /// Longest row in tokens; by default 2048 or what the model was made for, if that is less
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_seq_length: Option<usize>,
    /// What the optimizer keeps beside the weights
    #[arg(long, value_enum, default_value_t = OptimStates::F32)]
    optim_states: OptimStates,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of 1 or more".into()),
        Ok(n) => Ok(n),
    }
}

pub(super) fn run(args: Args) -> Result<()> {
    let dir = ModelDir::open(&args.model)?;
    let (config, layout) = (dir.config(), dir.layout());
    let positions = config.max_position_embeddings;
    let length = args.max_seq_length.unwrap_or(DEFAULT_MAX_SEQ_LENGTH.min(positions));
    let batch_size = args.per_device_train_batch_size;
    let max_tokens = batch_size.checked_mul(length).filter(|&t| i32::try_from(t).is_ok());
    let Some(max_tokens) = max_tokens else {
        return Err(Error::Usage {
            option: "--per-device-train-batch-size".into(),
            expected: format!("at most {} rows of {length} tokens", i32::MAX as usize / length),
            got: batch_size.to_string(),
        });
    };
    let limits = StepLimits {
        max_tokens,
        max_documents: batch_size,
        max_micro_batches: args.gradient_accumulation_steps,
    };
    // The numbers do not matter for memory.
    let (beta1, beta2, epsilon, weight_decay) = (0.9, 0.999, 1e-8, 0.0);
    let states = args.optim_states;
    let adamw = AdamWConfig { beta1, beta2, epsilon, weight_decay, states, seed: 0 };
    let mut table = plan(config, layout, DType::BF16, adamw, limits, length)?;
    plan_scratch(&mut table, config, limits)?;
    if args.json {
        return print_json(&table);
    }
    print_line(&table.to_string())
}

//! `hooke finetune`.

use super::device::DeviceArgs;
use super::probe::Probe;
use super::text::TextModel;
use super::{note, print_line};
use crate::data::encode::Overlong;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::optim::adamw::AdamWConfig;
use crate::optim::schedule::{LrSchedulerType, Schedule};
use crate::optim::states::OptimStates;
use crate::train::record::StepRecord;
use crate::train::run::{PreparedRun, RunConfig};
use std::path::PathBuf;
use std::time::Instant;

/// More passes than anybody means; the plan of a run counts them in 32 bits.
const MAX_EPOCHS: f64 = 1e9;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Hugging Face directory of the model to start from
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// JSONL file with rows {"text"}, {"prompt","completion"} or {"messages"}
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Rows to evaluate before the first step and after the last
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    /// Text that the model continues before the first step and after the last; may be repeated
    #[arg(long, value_name = "TEXT")]
    sample_prompt: Vec<String>,
    /// New or empty directory for metrics.jsonl and model/
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    /// Passes over the rows; may be fractional
    #[arg(long, default_value_t = 3.0, value_name = "X")]
    num_train_epochs: f64,
    /// Optimizer steps, instead of epochs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_steps: Option<u64>,
    /// Rows in a micro-batch
    #[arg(long, default_value_t = 8, value_name = "N")]
    per_device_train_batch_size: usize,
    /// Micro-batches in an optimizer step
    #[arg(long, default_value_t = 1, value_name = "N")]
    gradient_accumulation_steps: usize,
    /// Peak learning rate
    #[arg(long, default_value = "2e-5", value_name = "X")]
    learning_rate: f64,
    /// Course of the learning rate after the warmup
    #[arg(long, value_enum, default_value_t = LrSchedulerType::Linear, value_name = "KIND")]
    lr_scheduler_type: LrSchedulerType,
    /// Steps over which the learning rate rises from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    warmup_steps: u64,
    /// Decoupled weight decay of matrices
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    weight_decay: f64,
    /// Decay of the first moment
    #[arg(long, default_value_t = 0.9, value_name = "X")]
    adam_beta1: f64,
    /// Decay of the second moment
    #[arg(long, default_value_t = 0.999, value_name = "X")]
    adam_beta2: f64,
    /// Added to the root of the second moment
    #[arg(long, default_value = "1e-8", value_name = "X")]
    adam_epsilon: f64,
    /// What the optimizer keeps beside the weights; less than f32 only on a GPU
    #[arg(long, value_enum, default_value_t = OptimStates::F32)]
    optim_states: OptimStates,
    /// Norm that gradients are clipped to; 0 for none
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    max_grad_norm: f64,
    /// Longest row in tokens; by default 2048 or what the model was made for, if that is less
    #[arg(long, value_name = "N")]
    max_seq_length: Option<usize>,
    /// What happens to longer rows
    #[arg(long, value_enum, default_value_t = Overlong::Drop, value_name = "POLICY")]
    overlong: Overlong,
    /// Decides the order of the rows
    #[arg(long, default_value_t = 42, value_name = "N")]
    seed: u64,
    /// Steps between two lines on the terminal; metrics.jsonl has every step
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    logging_steps: u64,
}

pub(super) fn run(args: Args) -> Result<()> {
    check_numbers(&args)?;
    let prepared = PreparedRun::new(run_config(&args))?;
    let text_model = TextModel::open(&args.model)?;
    let probe = Probe::new(text_model, args.eval.as_deref(), &args.sample_prompt)?;
    note(&prepared.report().to_string());
    let num_steps = prepared.num_steps();
    note(&format!("steps     {num_steps}, rows of up to {} tokens", prepared.max_seq_length()));
    args.device.run(|device| train(device, &args, prepared, &probe))
}

fn train(device: &Device, args: &Args, prepared: PreparedRun, probe: &Probe) -> Result<()> {
    let num_steps = prepared.num_steps();
    if let Device::Cuda(_) = device {
        note(&prepared.memory_plan(device, probe.positions())?.to_string());
    }
    let mut run = prepared.start(device, probe.positions())?;
    let before = probe.measure(run.model())?;
    let started = Instant::now();
    let mut input_tokens = 0;
    run.train(|record| {
        input_tokens += record.input_tokens;
        if record.step % args.logging_steps == 0 || record.step == 1 || record.step == num_steps {
            print_step(record, num_steps);
        }
    })?;
    let seconds = started.elapsed().as_secs_f64();
    note(&format!(
        "trained on {input_tokens} tokens in {seconds:.1} s ({:.0} tokens/s)",
        input_tokens as f64 / seconds
    ));
    // Saved first: whatever happens to the measurements, the training is not lost.
    let destination = run.save()?;
    let after = probe.measure(run.model())?;
    probe.print(&before, &after)?;
    print_line(&format!("model: {}", destination.display()))
}

fn run_config(args: &Args) -> RunConfig {
    RunConfig {
        model: args.model.clone(),
        train: args.train.clone(),
        output_dir: args.output_dir.clone(),
        num_train_epochs: args.num_train_epochs,
        max_steps: args.max_steps,
        per_device_train_batch_size: args.per_device_train_batch_size,
        gradient_accumulation_steps: args.gradient_accumulation_steps,
        schedule: Schedule {
            kind: args.lr_scheduler_type,
            learning_rate: args.learning_rate,
            warmup_steps: args.warmup_steps,
            total_steps: 0,
        },
        adamw: AdamWConfig {
            beta1: args.adam_beta1,
            beta2: args.adam_beta2,
            epsilon: args.adam_epsilon,
            weight_decay: args.weight_decay,
            states: args.optim_states,
            seed: args.seed,
        },
        max_grad_norm: args.max_grad_norm,
        max_seq_length: args.max_seq_length,
        overlong: args.overlong,
        seed: args.seed,
    }
}

fn check_numbers(args: &Args) -> Result<()> {
    let below_one = |x: f64| (0.0..1.0).contains(&x);
    let positive = |x: f64| x > 0.0 && x.is_finite();
    let not_negative = |x: f64| x >= 0.0 && x.is_finite();
    let rules: [(&str, f64, bool, &str); 7] = [
        (
            "--num-train-epochs",
            args.num_train_epochs,
            positive(args.num_train_epochs) && args.num_train_epochs <= MAX_EPOCHS,
            "more than 0, at most 1e9",
        ),
        ("--learning-rate", args.learning_rate, not_negative(args.learning_rate), "0 or more"),
        ("--weight-decay", args.weight_decay, not_negative(args.weight_decay), "0 or more"),
        ("--adam-beta1", args.adam_beta1, below_one(args.adam_beta1), "0 or more, below 1"),
        ("--adam-beta2", args.adam_beta2, below_one(args.adam_beta2), "0 or more, below 1"),
        ("--adam-epsilon", args.adam_epsilon, positive(args.adam_epsilon), "more than 0"),
        ("--max-grad-norm", args.max_grad_norm, not_negative(args.max_grad_norm), "0 or more"),
    ];
    for (option, value, holds, expected) in rules {
        if !holds {
            let (option, expected, got) = (option.into(), expected.into(), value.to_string());
            return Err(Error::Usage { option, expected, got });
        }
    }
    for (option, value) in [
        ("--per-device-train-batch-size", args.per_device_train_batch_size),
        ("--gradient-accumulation-steps", args.gradient_accumulation_steps),
    ] {
        if value == 0 {
            let (option, expected, got) = (option.into(), "1 or more".into(), "0".into());
            return Err(Error::Usage { option, expected, got });
        }
    }
    Ok(())
}

fn print_step(record: &StepRecord, num_steps: u64) {
    let width = num_steps.to_string().len();
    note(&format!(
        "step {:>width$}/{num_steps}  loss {:.4}  grad_norm {:.3}  lr {:.2e}  {:.0} tokens/s",
        record.step, record.loss, record.grad_norm, record.learning_rate, record.tokens_per_s
    ));
}

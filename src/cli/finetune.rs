//! `hooke finetune`.

use super::device::DeviceArgs;
use super::eval::BATCH_TOKENS;
use super::generate::greedy_samples;
use super::text::TextModel;
use crate::data::encode::Overlong;
use crate::data::jsonl::read_rows;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::{ScoredRow, Totals, encode, evaluate};
use crate::model::Model;
use crate::optim::adamw::AdamWConfig;
use crate::optim::schedule::{LrSchedulerType, Schedule};
use crate::optim::states::OptimStates;
use crate::train::record::StepRecord;
use crate::train::run::{PreparedRun, RunConfig};
use std::path::PathBuf;
use std::time::Instant;

/// Tokens of each sample before and after.
const SAMPLE_TOKENS: usize = 40;

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
    #[arg(long, default_value_t = 2e-5, value_name = "X")]
    learning_rate: f64,
    /// Course of the learning rate after the warmup
    #[arg(long, value_enum, default_value_t = LrSchedulerType::Linear)]
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
    #[arg(long, default_value_t = 1e-8, value_name = "X")]
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
    #[arg(long, value_enum, default_value_t = Overlong::Drop)]
    overlong: Overlong,
    /// Decides the order of the rows
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Steps between two lines on the terminal; metrics.jsonl has every step
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    logging_steps: u64,
}

pub(super) fn run(args: Args) -> Result<()> {
    check_numbers(&args)?;
    let prepared = PreparedRun::new(run_config(&args))?;
    let text_model = TextModel::open(&args.model)?;
    let probe = Probe::new(&args, text_model)?;
    eprintln!("{}", prepared.report());
    let num_steps = prepared.num_steps();
    eprintln!("{num_steps} optimizer steps, rows of up to {} tokens", prepared.max_seq_length());
    args.device.run(|device| train(device, &args, prepared, &probe))
}

fn train(device: &Device, args: &Args, prepared: PreparedRun, probe: &Probe) -> Result<()> {
    let num_steps = prepared.num_steps();
    if let Device::Cuda(_) = device {
        eprintln!("{}", prepared.memory_plan(device, probe.positions())?);
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
    eprintln!(
        "trained on {input_tokens} tokens in {seconds:.1} s ({:.0} tokens/s)",
        input_tokens as f64 / seconds
    );
    let after = probe.measure(run.model())?;
    let destination = run.save()?;
    probe.print(&before, &after)?;
    super::print_line(&format!("model: {}", destination.display()))
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
            positive(args.num_train_epochs),
            "more than 0",
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
    eprintln!(
        "step {:>6}/{num_steps}  loss {:.4}  grad_norm {:.3}  learning_rate {:.2e}  {:.0} tokens/s",
        record.step, record.loss, record.grad_norm, record.learning_rate, record.tokens_per_s
    );
}

/// What is measured before the first step and after the last.
struct Probe {
    text_model: TextModel,
    rows: Vec<ScoredRow>,
    prompts: Vec<String>,
}

struct Measurement {
    totals: Option<Totals>,
    samples: Vec<String>,
}

impl Probe {
    fn new(args: &Args, text_model: TextModel) -> Result<Self> {
        let mut rows = Vec::new();
        if let Some(path) = &args.eval {
            let (tokenizer, template) = (&text_model.tokenizer, text_model.template.as_ref());
            let limit = text_model.dir.config().max_position_embeddings;
            rows = encode(path, &read_rows(path)?, tokenizer, template, limit)?;
        }
        Ok(Self { text_model, rows, prompts: args.sample_prompt.clone() })
    }

    /// Positions the model must be able to compute.
    fn positions(&self) -> usize {
        let limit = self.text_model.dir.config().max_position_embeddings;
        let longest = self.rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        if self.prompts.is_empty() { longest } else { limit.min(longest.max(4096)) }
    }

    fn measure(&self, model: &Model) -> Result<Measurement> {
        let mut totals = None;
        if !self.rows.is_empty() {
            totals = Some(evaluate(model, &self.rows, BATCH_TOKENS, |_, _, _| {})?);
        }
        let samples = greedy_samples(&self.text_model, model, &self.prompts, SAMPLE_TOKENS)?;
        Ok(Measurement { totals, samples })
    }

    fn print(&self, before: &Measurement, after: &Measurement) -> Result<()> {
        if let (Some(before), Some(after)) = (&before.totals, &after.totals) {
            super::print_line(&format!(
                "held-out rows: {} ({} tokens)\n  before  loss {:.4}  bits/byte {:.4}\n  after   loss {:.4}  bits/byte {:.4}",
                before.rows,
                before.tokens,
                before.loss(),
                before.bits_per_byte(),
                after.loss(),
                after.bits_per_byte()
            ))?;
        }
        for (prompt, (before, after)) in
            self.prompts.iter().zip(before.samples.iter().zip(&after.samples))
        {
            super::print_line(&format!("{prompt:?}\n  before  {before:?}\n  after   {after:?}"))?;
        }
        Ok(())
    }
}

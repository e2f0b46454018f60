//! A fine-tuning run: everything is read and checked first, then trained, then written.

use super::memory::{self, StepLimits};
use super::record::{MetricsWriter, StepRecord};
use super::step::Trainer;
use crate::checkpoint::atomic::StagedDir;
use crate::checkpoint::model_dir::ModelDir;
use crate::data::batch::Batch;
use crate::data::chat::ChatTemplate;
use crate::data::encode::{Example, Overlong, encode_rows};
use crate::data::jsonl::read_rows;
use crate::data::plan::StepPlan;
use crate::data::report::EncodeReport;
use crate::data::tokenizer::Tokenizer;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::MemoryTable;
use crate::model::Model;
use crate::model::params::Params;
use crate::optim::adamw::AdamWConfig;
use crate::optim::schedule::Schedule;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Longest row by default, if the model allows it.
pub const DEFAULT_MAX_SEQ_LENGTH: usize = 2048;

/// Directory of the trained model within the output directory.
const MODEL_DIR: &str = "model";

/// What to train on what, and how.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// Hugging Face directory of the model to start from.
    pub model: PathBuf,
    /// Rows to train on.
    pub train: PathBuf,
    /// Where `metrics.jsonl` and `model/` go; absent or empty.
    pub output_dir: PathBuf,
    /// Passes over the rows; may be fractional.
    pub num_train_epochs: f64,
    /// Steps, instead of epochs.
    pub max_steps: Option<u64>,
    /// Rows in a micro-batch.
    pub per_device_train_batch_size: usize,
    /// Micro-batches in an optimizer step.
    pub gradient_accumulation_steps: usize,
    /// Shape of the learning rate; its `total_steps` is filled in by the run.
    pub schedule: Schedule,
    /// Betas, epsilon, decay.
    pub adamw: AdamWConfig,
    /// Norm that gradients are clipped to; 0 for none.
    pub max_grad_norm: f64,
    /// Longest row in tokens; the default is the smaller of [`DEFAULT_MAX_SEQ_LENGTH`] and what
    /// the model was made for.
    pub max_seq_length: Option<usize>,
    /// What happens to longer rows.
    pub overlong: Overlong,
    /// Decides the order of the rows.
    pub seed: u64,
}

/// A run whose inputs have all been read and found good. Nothing has been written yet.
#[derive(Debug)]
pub struct PreparedRun {
    config: RunConfig,
    model_dir: ModelDir,
    tokenizer: Tokenizer,
    examples: Vec<Example>,
    report: EncodeReport,
    plan: StepPlan,
    max_seq_length: usize,
}

impl PreparedRun {
    /// Reads and checks configuration, tokenizer, template and data, in the order in which
    /// failing is cheapest.
    pub fn new(config: RunConfig) -> Result<Self> {
        check_output_dir(&config.output_dir)?;
        let model_dir = ModelDir::open(&config.model)?;
        let tokenizer = Tokenizer::load(&config.model)?;
        tokenizer.check_fits(model_dir.config().vocab_size)?;
        let max_seq_length = resolve_max_seq_length(&config, &model_dir)?;
        let template = ChatTemplate::load(&config.model, &tokenizer)?;
        let rows = read_rows(&config.train)?;
        let (examples, report) = encode_rows(
            &config.train,
            &rows,
            &tokenizer,
            template.as_ref(),
            max_seq_length,
            config.overlong,
        )?;
        let plan = StepPlan::new(
            examples.len(),
            config.per_device_train_batch_size,
            config.gradient_accumulation_steps,
            config.num_train_epochs,
            config.max_steps,
            config.seed,
        )?;
        Ok(Self { config, model_dir, tokenizer, examples, report, plan, max_seq_length })
    }

    /// What became of the rows.
    pub fn report(&self) -> &EncodeReport {
        &self.report
    }

    /// Optimizer steps that will be made.
    pub fn num_steps(&self) -> u64 {
        self.plan.num_steps()
    }

    /// Longest row in tokens, resolved.
    pub fn max_seq_length(&self) -> usize {
        self.max_seq_length
    }

    /// The model directory the run starts from.
    pub fn model_dir(&self) -> &ModelDir {
        &self.model_dir
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The GPU memory that [`Self::start`] will take on such a device.
    pub fn memory_plan(&self, device: &Device, min_positions: usize) -> Result<MemoryTable> {
        let (config, layout) = (self.model_dir.config(), self.model_dir.layout());
        let (limits, dtype) = (self.limits(), device.compute_dtype());
        let max_positions = self.max_seq_length.max(min_positions);
        let adamw = self.config.adamw;
        let mut table = memory::plan(config, layout, dtype, adamw, limits, max_positions)?;
        memory::plan_scratch(&mut table, config, limits)?;
        Ok(table)
    }

    /// Loads the weights and allocates everything a step needs.
    pub fn start(self, device: &Device, min_positions: usize) -> Result<Run> {
        let (limits, dtype) = (self.limits(), device.compute_dtype());
        let max_positions = self.max_seq_length.max(min_positions);
        let (config, layout) = (self.model_dir.config(), self.model_dir.layout());
        let RunConfig { adamw, max_grad_norm, .. } = self.config;
        adamw.states.check(dtype)?;
        let table = memory::plan(config, layout, dtype, adamw, limits, max_positions)?;
        device.reserve(table.total_bytes())?;
        let weights = Params::zeros(device, "weights", layout, dtype)?;
        let model = Model::new(device, config.clone(), weights, max_positions)?;
        let mut trainer = Trainer::new(model, adamw, max_grad_norm, limits)?;
        trainer.load(&self.model_dir)?;
        Ok(Run { prepared: self, trainer })
    }

    /// The largest step that there can be, whatever the order of the rows.
    fn limits(&self) -> StepLimits {
        let mut lengths: Vec<usize> = self.examples.iter().map(|row| row.ids.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.truncate(self.config.per_device_train_batch_size);
        StepLimits {
            max_tokens: lengths.iter().sum(),
            max_documents: lengths.len(),
            max_micro_batches: self.plan.max_micro_batches(),
        }
    }
}

/// A run with its memory allocated. Nothing has been written yet.
#[derive(Debug)]
pub struct Run {
    prepared: PreparedRun,
    trainer: Trainer,
}

impl Run {
    /// The model as it is now.
    pub fn model(&self) -> &Model {
        self.trainer.model()
    }

    /// The checked inputs.
    pub fn prepared(&self) -> &PreparedRun {
        &self.prepared
    }

    /// Creates the output directory and makes every step; `on_step` sees each record once it is
    /// in `metrics.jsonl`.
    pub fn train(&mut self, mut on_step: impl FnMut(&StepRecord)) -> Result<()> {
        let Self { prepared, trainer } = self;
        let dir = &prepared.config.output_dir;
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let mut metrics = MetricsWriter::create(&dir.join("metrics.jsonl"))?;
        let total_steps = prepared.num_steps();
        let schedule = Schedule { total_steps, ..prepared.config.schedule };
        for index in 0..total_steps {
            let started = Instant::now();
            let micro_batches: Vec<Batch> = prepared
                .plan
                .micro_batches(index)
                .iter()
                .map(|rows| {
                    let examples: Vec<&Example> =
                        rows.iter().map(|&i| &prepared.examples[i]).collect();
                    Batch::pack(&examples)
                })
                .collect();
            let (step, learning_rate) = (index + 1, schedule.at(index));
            let outcome = trainer.step(&micro_batches, step, learning_rate)?;
            let record = StepRecord {
                step,
                loss: outcome.loss,
                grad_norm: outcome.grad_norm,
                learning_rate,
                input_tokens: outcome.input_tokens,
                trained_tokens: outcome.trained_tokens,
                tokens_per_s: outcome.input_tokens as f64 / started.elapsed().as_secs_f64(),
            };
            metrics.write(&record)?;
            on_step(&record);
        }
        metrics.sync()
    }

    /// Writes `model/`, whole or not at all; returns where it is.
    pub fn save(&self) -> Result<PathBuf> {
        let destination = self.prepared.config.output_dir.join(MODEL_DIR);
        let staged = StagedDir::new(&destination)?;
        self.prepared.model_dir.save_from(self.trainer.weights(), &staged)?;
        staged.commit()?;
        Ok(destination)
    }
}

/// Fails unless `dir` is absent or empty, and `model` within it could be written now. Leaves
/// nothing behind.
fn check_output_dir(dir: &Path) -> Result<()> {
    let is_empty = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(Error::io("use", dir)(error)),
    };
    if !is_empty {
        return Err(Error::NotEmpty { path: dir.into() });
    }
    drop(StagedDir::new(&dir.join(MODEL_DIR))?);
    Ok(())
}

fn resolve_max_seq_length(config: &RunConfig, model_dir: &ModelDir) -> Result<usize> {
    let limit = model_dir.config().max_position_embeddings;
    let chosen = config.max_seq_length.unwrap_or(DEFAULT_MAX_SEQ_LENGTH.min(limit));
    if (2..=limit).contains(&chosen) {
        return Ok(chosen);
    }
    Err(Error::Usage {
        option: "--max-seq-length".into(),
        expected: format!("2 to {limit} (max_position_embeddings of the model)"),
        got: chosen.to_string(),
    })
}

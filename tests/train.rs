//! Training: one step, accumulation, the whole run on the embedded model.

use crate::support::{data, embedded_model, flat, random_model, tiny_config};
use hooke::data::batch::Batch;
use hooke::data::encode::{Example, Overlong};
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::error::Error;
use hooke::model::config::Family;
use hooke::optim::adamw::AdamWConfig;
use hooke::optim::schedule::{LrSchedulerType, Schedule};
use hooke::optim::states::OptimStates;
use hooke::train::memory::StepLimits;
use hooke::train::record::StepRecord;
use hooke::train::run::{PreparedRun, RunConfig};
use hooke::train::step::Trainer;
use std::path::Path;

const ADAMW: AdamWConfig = AdamWConfig {
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.01,
    states: OptimStates::F32,
    seed: 7,
};

const LIMITS: StepLimits = StepLimits { max_tokens: 15, max_documents: 4, max_micro_batches: 4 };

fn example(ids: &[u32], num_untrained: usize) -> Example {
    let trained = (0..ids.len()).map(|i| i >= num_untrained).collect();
    Example { ids: ids.to_vec(), trained, line: 1 }
}

/// Rows of unequal length and unequal share of trained tokens, so that a mean of means would show.
fn examples() -> Vec<Example> {
    vec![
        example(&[1, 2, 3, 4, 5, 6], 1),
        example(&[7, 8, 9], 2),
        example(&[10, 11, 12, 13], 1),
        example(&[14, 15], 1),
    ]
}

fn trainer<T: Real>(family: Family) -> Trainer {
    Trainer::new(random_model::<T>(&tiny_config(family), 1), ADAMW, 1.0, LIMITS).unwrap()
}

fn batches(examples: &[Example], rows_per_batch: usize) -> Vec<Batch> {
    let pack = |rows: &[Example]| Batch::pack(&rows.iter().collect::<Vec<_>>());
    examples.chunks(rows_per_batch).map(pack).collect()
}

/// The loss is a mean over the tokens of the whole step, so splitting it changes rounding only.
fn accumulation_changes_rounding_only<T: Real>(tolerance: f64) {
    let examples = examples();
    let mut whole = trainer::<T>(Family::Qwen3);
    let want = whole.step(&batches(&examples, 4), 1, 1e-2).unwrap();
    for rows in [1, 2, 3] {
        let mut split = trainer::<T>(Family::Qwen3);
        let got = split.step(&batches(&examples, rows), 1, 1e-2).unwrap();
        assert_eq!((got.input_tokens, got.trained_tokens), (15, 10));
        for (got, want) in [(got.loss, want.loss), (got.grad_norm, want.grad_norm)] {
            assert!((got - want).abs() <= tolerance * want, "{rows} rows: {got} for {want}");
        }
    }
}

#[test]
fn accumulation_equals_the_large_batch_to_rounding() {
    // A sum of about ten terms in another order: a few units of roundoff.
    accumulation_changes_rounding_only::<f64>(64.0 * f64::UNIT_ROUNDOFF);
    accumulation_changes_rounding_only::<f32>(64.0 * f32::UNIT_ROUNDOFF);
}

#[test]
fn one_batch_can_be_learned_by_heart() {
    for family in [Family::Llama, Family::Qwen2, Family::Qwen3] {
        let mut trainer = trainer::<f32>(family);
        let batch = batches(&examples(), 4);
        let mut loss = f64::NAN;
        for step in 1..=150 {
            loss = trainer.step(&batch, step, 2e-2).unwrap().loss;
        }
        assert!(loss < 0.05, "{family:?}: loss {loss}");
    }
}

#[test]
fn a_non_finite_loss_or_gradient_stops_before_the_update() {
    for poison in [f32::NAN, f32::INFINITY] {
        let mut model = random_model::<f32>(&tiny_config(Family::Llama), 1);
        let span = model.weights.layout().get("model.norm.weight").unwrap().span;
        model.weights.view_mut(&span).host::<f32>()[3] = poison;
        let before = flat(&model.weights);
        let mut trainer = Trainer::new(model, ADAMW, 1.0, LIMITS).unwrap();
        let error = trainer.step(&batches(&examples(), 4), 7, 1e-2).unwrap_err();
        assert!(matches!(error, Error::NonFinite { step: 7, .. }), "{error}");
        assert_eq!(error.exit_code(), 6);
        let after = flat(&trainer.model().weights);
        assert!(before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

fn run_config(output_dir: &Path) -> RunConfig {
    RunConfig {
        model: embedded_model(),
        train: data("movie-snippets/train.jsonl"),
        output_dir: output_dir.to_path_buf(),
        num_train_epochs: 1.0,
        max_steps: Some(4),
        per_device_train_batch_size: 4,
        gradient_accumulation_steps: 2,
        schedule: Schedule {
            kind: LrSchedulerType::Cosine,
            learning_rate: 1e-3,
            warmup_steps: 1,
            total_steps: 0,
        },
        adamw: ADAMW,
        max_grad_norm: 1.0,
        max_seq_length: None,
        overlong: Overlong::Drop,
        seed: 7,
    }
}

fn train(config: RunConfig) -> Vec<StepRecord> {
    let mut run = PreparedRun::new(config).unwrap().start(&Device::Cpu, 0).unwrap();
    let mut records = Vec::new();
    run.train(|record| records.push(*record)).unwrap();
    run.save().unwrap();
    records
}

#[test]
fn two_runs_are_bitwise_equal_and_leave_metrics_and_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let records = train(run_config(&one));
    assert_eq!(records.len(), 4);
    assert_eq!(records[0].learning_rate, 0.0, "the first step of a warmup from 0");
    for (a, b) in records.iter().zip(train(run_config(&two))) {
        assert_eq!(
            (a.loss.to_bits(), a.grad_norm.to_bits()),
            (b.loss.to_bits(), b.grad_norm.to_bits())
        );
    }
    let read = |dir: &Path, name: &str| std::fs::read(dir.join(name)).unwrap();
    assert_eq!(read(&one, "model/model.safetensors"), read(&two, "model/model.safetensors"));
    assert_ne!(
        read(&one, "model/model.safetensors"),
        std::fs::read(embedded_model().join("model.safetensors")).unwrap()
    );
    let metrics = String::from_utf8(read(&one, "metrics.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> =
        metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    for (row, record) in rows.iter().zip(&records) {
        assert_eq!(row["step"], record.step);
        assert_eq!(row["loss"], record.loss);
        for key in ["grad_norm", "learning_rate", "input_tokens", "trained_tokens", "tokens_per_s"]
        {
            assert!(row[key].is_number(), "{key} in {row}");
        }
    }
}

#[test]
fn the_seed_decides_the_order_of_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let first_loss = |name: &str, seed| {
        let config = RunConfig { seed, max_steps: Some(1), ..run_config(&dir.path().join(name)) };
        train(config)[0].loss
    };
    assert_ne!(first_loss("a", 1), first_loss("b", 2));
}

#[test]
fn preparing_a_run_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    PreparedRun::new(run_config(&output)).unwrap();
    assert!(!output.exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no temporary left behind");
}

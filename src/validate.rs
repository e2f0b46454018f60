//! hooke's numbers held against a reference, tensor by tensor.

use crate::checkpoint::reference::Reference;
use crate::data::batch::Batch;
use crate::dtype::DType;
use crate::error::Result;
use crate::model::Model;
use crate::model::activations::{Activations, Keep};
use crate::model::head::Head;
use crate::model::params::Params;
use crate::optim::adamw::AdamWConfig;
use crate::optim::states::OptimStates;
use crate::tensor::View;
use crate::testing::compare::{Comparison, compare};
use crate::train::memory::StepLimits;
use crate::train::step::Trainer;
use serde::Serialize;

/// How close a tensor must be. The numbers here are for f32 on both sides, which differ by the order
/// of their sums only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Largest difference as a share of the largest reference element. Activations: about a
    /// hundred chained operations of relative error 6·10⁻⁸, their signs mixed, stay below 2·10⁻⁵.
    Scale(f64),
    /// Norm of the difference as a share of the norm, and a cosine above 1 less its square (and
    /// 10⁻⁶). Gradients: the
    /// errors of forward and backward add up, and single elements may cancel.
    Norm(f64),
    /// Largest relative difference of any element. Losses.
    Relative(f64),
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Name in the reference.
    pub name: String,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// The same as a share of the largest reference element.
    pub max_rel: f64,
    /// Norm of the difference as a share of the reference's norm.
    pub norm_rel: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// Flat index of the largest difference, in what the reference stores.
    pub worst_index: usize,
    /// The bound.
    pub tolerance: f64,
    /// Whether it holds.
    pub passed: bool,
}

impl Row {
    fn new(name: &str, got: &[f64], want: &[f64], tolerance: Tolerance) -> Self {
        let Comparison { max_abs, max_rel, norm_rel, cosine, worst_index, .. } = compare(got, want);
        let (bound, passed) = match tolerance {
            Tolerance::Scale(bound) => (bound, max_rel <= bound),
            Tolerance::Norm(bound) => {
                (bound, norm_rel <= bound && cosine > 1.0 - (bound * bound).max(1e-6))
            }
            Tolerance::Relative(bound) => {
                let close = |(g, w): (&f64, &f64)| (g - w).abs() <= bound * w.abs();
                (bound, got.iter().zip(want).all(close))
            }
        };
        let (name, tolerance) = (name.to_string(), bound);
        Self { name, max_abs, max_rel, norm_rel, cosine, worst_index, tolerance, passed }
    }
}

/// The bounds for one element type.
#[derive(Debug, Clone, Copy)]
struct Tolerances {
    /// Hidden states, logits and token losses.
    activations: Tolerance,
    /// The mean loss.
    loss: Tolerance,
    /// The gradient of each parameter.
    gradients: Tolerance,
    /// Each loss and gradient norm of the optimizer run.
    run: Tolerance,
    /// The weights after it: AdamW moves a weight by up to the learning rate whatever the size of
    /// its gradient, so weights whose gradient is all rounding may part ways.
    weights: Tolerance,
}

const F32: Tolerances = Tolerances {
    activations: Tolerance::Scale(2e-5),
    loss: Tolerance::Relative(5e-6),
    gradients: Tolerance::Norm(1e-4),
    run: Tolerance::Relative(1e-3),
    weights: Tolerance::Norm(1e-3),
};

/// A model that computes in bf16 rounds every tensor to eight bits, an error of 1.1e-3 of its norm;
/// a few dozen add up, their signs mixed. Gradients carry twice as many and cancel over tokens; each
/// step of the optimizer then starts from weights rounded to 2^-9.
const BF16: Tolerances = Tolerances {
    activations: Tolerance::Scale(3e-2),
    loss: Tolerance::Relative(5e-3),
    gradients: Tolerance::Norm(5e-2),
    run: Tolerance::Relative(1e-1),
    weights: Tolerance::Norm(1e-2),
};

fn tolerances(dtype: DType) -> Tolerances {
    if dtype == DType::BF16 { BF16 } else { F32 }
}

/// Computes everything the reference holds and compares; one row per tensor, in the order in
/// which the computation goes. Consumes the model, which the optimizer run changes.
///
/// Errors: the reference lacks a tensor, or has one of another size.
pub fn validate_model(model: Model, reference: &Reference) -> Result<Vec<Row>> {
    let t = tolerances(model.dtype());
    let batch = reference_batch(reference);
    let mut rows = compare_forward(&model, reference, &batch)?;
    let limits = StepLimits {
        max_tokens: batch.tokens.len(),
        max_documents: batch.cu_seqlens.len() - 1,
        max_micro_batches: 1,
    };
    let run = reference.optimizer();
    let config = AdamWConfig {
        beta1: run.beta1,
        beta2: run.beta2,
        epsilon: run.epsilon,
        weight_decay: run.weight_decay,
        states: OptimStates::F32,
        seed: 0,
    };
    let mut trainer = Trainer::new(model, config, run.max_grad_norm, limits)?;
    let batches = [batch];
    let (mut losses, mut grad_norms) = (Vec::new(), Vec::new());
    for step in 1..=run.steps as u64 {
        let outcome = trainer.step(&batches, step, run.learning_rate)?;
        if step == 1 {
            compare_parameters("grad", trainer.grads(), reference, t.gradients, &mut rows)?;
        }
        losses.push(outcome.loss);
        grad_norms.push(outcome.grad_norm);
    }
    compare_values("adamw/losses", &losses, reference, t.run, &mut rows)?;
    compare_values("adamw/grad_norms", &grad_norms, reference, t.run, &mut rows)?;
    compare_parameters("weight", &trainer.model().weights, reference, t.weights, &mut rows)?;
    Ok(rows)
}

fn reference_batch(reference: &Reference) -> Batch {
    let cu_seqlens = reference.cu_seqlens();
    Batch {
        tokens: reference.tokens().to_vec(),
        targets: reference.targets().to_vec(),
        positions: cu_seqlens.windows(2).flat_map(|w| 0..w[1] - w[0]).collect(),
        cu_seqlens: cu_seqlens.to_vec(),
    }
}

fn compare_forward(model: &Model, reference: &Reference, batch: &Batch) -> Result<Vec<Row>> {
    let t = tolerances(model.dtype());
    let (num_tokens, n) = (batch.tokens.len(), batch.cu_seqlens.len() - 1);
    let mut acts = Activations::new(model, num_tokens, n, Keep::AllLayers)?;
    let mut head = Head::new(model, num_tokens)?;
    model.forward(batch.input(), &mut acts)?;
    let mut rows = Vec::new();
    for i in 0..=model.config().num_layers {
        let name = format!("hidden/{i}");
        compare_tensor(&name, acts.residual(i), reference, t.activations, &mut rows)?;
    }
    compare_tensor("hidden/final", acts.final_norm(), reference, t.activations, &mut rows)?;
    let mut logits = Vec::new();
    for chunk in (0..num_tokens).collect::<Vec<_>>().chunks(head.max_rows()) {
        logits.extend(model.logits(&acts, chunk, &mut head)?.to_f64_vec()?);
    }
    let logits = View::from_host(&logits, [num_tokens, model.config().vocab_size]);
    compare_tensor("logits", logits, reference, t.activations, &mut rows)?;
    let losses = model.losses(&acts, &batch.targets, &mut head)?;
    compare_values("nll", &losses, reference, t.activations, &mut rows)?;
    let mean = losses.iter().sum::<f64>() / batch.trained_tokens() as f64;
    compare_values("loss", &[mean], reference, t.loss, &mut rows)?;
    Ok(rows)
}

/// Compares `<prefix>/<name>` for every parameter.
fn compare_parameters(
    prefix: &str,
    params: &Params,
    reference: &Reference,
    tolerance: Tolerance,
    rows: &mut Vec<Row>,
) -> Result<()> {
    for spec in params.layout().specs() {
        let name = format!("{prefix}/{}", spec.name);
        compare_tensor(&name, params.view(&spec.span), reference, tolerance, rows)?;
    }
    Ok(())
}

fn compare_values(
    name: &str,
    values: &[f64],
    reference: &Reference,
    tolerance: Tolerance,
    rows: &mut Vec<Row>,
) -> Result<()> {
    compare_tensor(name, View::from_host(values, [values.len()]), reference, tolerance, rows)
}

/// Compares with what the reference stores of this tensor: all of it, or every k-th element.
fn compare_tensor(
    name: &str,
    computed: View<'_>,
    reference: &Reference,
    tolerance: Tolerance,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let pair = reference.pair(name, computed)?;
    rows.push(Row::new(name, &pair.got, &pair.want, tolerance));
    Ok(())
}

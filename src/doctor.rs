//! One launch of every family of kernels, its result held against the CPU's.
//!
//! Small on purpose: whether the installation works, not whether the kernels are right; the tests
//! ask that.

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::adamw::Hyper;
use crate::ops::matmul::{Accumulate, Layout};
use crate::ops::sample::Sampling;
use crate::ops::{
    Heads, adamw, attention, cross_entropy, elementwise, embedding, matmul, qk_norm, reduce,
    rmsnorm, rope, sample, swiglu,
};
use crate::tensor::Tensor;
use crate::testing::compare::compare;
use crate::testing::fill::{below, normal};
use serde::Serialize;

/// The outcome for one family.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// The operator, and its pass where it has several.
    pub name: &'static str,
    /// Whether the GPU's numbers are those of the CPU, within rounding.
    pub passed: bool,
    /// Distance from the CPU's numbers, or why there are none.
    pub detail: String,
}

/// What a check computes: on any device, with data of any type, always the same.
type Compute = fn(&Inputs<'_>) -> Result<Tensor>;

const CHECKS: [(&str, Compute); 16] = [
    ("embedding", embedding_forward),
    ("embedding backward", embedding_backward),
    ("rmsnorm", rmsnorm_forward),
    ("rmsnorm backward", rmsnorm_backward),
    ("qk_norm", qk_norm_forward),
    ("rope", rope_forward),
    ("matmul", matmul_forward),
    ("attention", attention_forward),
    ("attention backward", attention_backward),
    ("attention decode", attention_decode),
    ("swiglu", swiglu_forward),
    ("cross_entropy", cross_entropy_loss),
    ("reduce", reduce_sum_squares),
    ("elementwise", elementwise_cast),
    ("adamw", adamw_step),
    ("sample", sample_likeliest),
];

/// Runs every check on a GPU, with bf16 data. An operator that fails is a failed check; a device
/// that fails is an error.
pub fn check_kernels(device: &Device) -> Result<Vec<Check>> {
    CHECKS.iter().map(|&(name, compute)| check(device, name, compute)).collect()
}

fn check(device: &Device, name: &'static str, compute: Compute) -> Result<Check> {
    let want = compute(&Inputs { device: &Device::Cpu, dtype: DType::F32 })?;
    let want = want.view().to_f64_vec()?;
    let got = compute(&Inputs { device, dtype: DType::BF16 });
    let got = match got.and_then(|tensor| tensor.view().to_f64_vec()) {
        Ok(got) => got,
        Err(error) => {
            // An operator without a kernel leaves the device as it was; a broken device does not.
            device.synchronize()?;
            return Ok(Check { name, passed: false, detail: error.to_string() });
        }
    };
    let comparison = compare(&got, &want);
    // Inputs, results and what lies between are rounded to eight bits: a few steps of 2^-9 each.
    let passed = comparison.norm_rel < 0.03;
    let detail = format!("differs by {:.1e} of its norm", comparison.norm_rel);
    Ok(Check { name, passed, detail })
}

const T: usize = 24;
const C: usize = 64;
const V: usize = 50;
const HEADS: Heads = Heads { num_heads: 4, num_kv_heads: 2, head_dim: 32 };
const EPS: f64 = 1e-5;
const SCALE: f64 = 0.2;

/// Where and in which type.
struct Inputs<'a> {
    device: &'a Device,
    dtype: DType,
}

impl Inputs<'_> {
    /// Normal values of the data type.
    fn normal<const R: usize>(&self, shape: [usize; R], seed: u64) -> Result<Tensor> {
        let values: Vec<f32> = normal(shape.iter().product(), 1.0, seed);
        if self.dtype == DType::F32 {
            return self.upload(shape, &values);
        }
        let values: Vec<half::bf16> = values.iter().map(|&x| half::bf16::from_f32(x)).collect();
        Tensor::from_slice(self.device, "an operand", shape, &values)
    }

    fn upload<const R: usize>(&self, shape: [usize; R], values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(self.device, "an operand", shape, values)
    }

    fn ids(&self, values: &[i32]) -> Result<Tensor> {
        Tensor::from_slice(self.device, "ids", [values.len()], values)
    }

    fn out<const R: usize>(&self, shape: [usize; R]) -> Result<Tensor> {
        Tensor::zeros(self.device, "a result", shape, self.dtype)
    }

    /// Statistics and gradients of parameters.
    fn sums<const R: usize>(&self, shape: [usize; R]) -> Result<Tensor> {
        Tensor::zeros(self.device, "a result", shape, DType::F32)
    }
}

fn embedding_forward(i: &Inputs<'_>) -> Result<Tensor> {
    let (mut out, tokens) = (i.out([T, C])?, i.ids(&below(T, V as u32, 1))?);
    embedding::forward(i.device, out.view_mut(), tokens.view(), i.normal([V, C], 2)?.view())?;
    Ok(out)
}

fn embedding_backward(i: &Inputs<'_>) -> Result<Tensor> {
    let (mut out, tokens) = (i.sums([V, C])?, i.ids(&below(T, V as u32, 1))?);
    embedding::backward(i.device, out.view_mut(), i.normal([T, C], 2)?.view(), tokens.view())?;
    Ok(out)
}

fn rmsnorm_forward(i: &Inputs<'_>) -> Result<Tensor> {
    let (mut y, mut rstd, x, w) =
        (i.out([T, C])?, i.sums([T])?, i.normal([T, C], 1)?, i.normal([C], 2)?);
    rmsnorm::forward(i.device, y.view_mut(), rstd.view_mut(), x.view(), w.view(), EPS)?;
    Ok(y)
}

fn rmsnorm_backward(i: &Inputs<'_>) -> Result<Tensor> {
    let (mut y, mut rstd, x, w) =
        (i.out([T, C])?, i.sums([T])?, i.normal([T, C], 1)?, i.normal([C], 2)?);
    rmsnorm::forward(i.device, y.view_mut(), rstd.view_mut(), x.view(), w.view(), EPS)?;
    let (mut dx, mut dw, dy) = (i.out([T, C])?, i.sums([C])?, i.normal([T, C], 3)?);
    let (dx_mut, rstd) = (dx.view_mut(), rstd.view());
    rmsnorm::backward(i.device, dx_mut, dw.view_mut(), dy.view(), x.view(), w.view(), rstd)?;
    Ok(dx)
}

fn qk_norm_forward(i: &Inputs<'_>) -> Result<Tensor> {
    let width = HEADS.qkv_dim();
    let (mut out, mut rstd) = (i.out([T, width])?, i.sums([T, 6])?);
    let (qkv, q, k) = (i.normal([T, width], 1)?, i.normal([32], 2)?, i.normal([32], 3)?);
    let (out_mut, rstd, qkv) = (out.view_mut(), rstd.view_mut(), qkv.view());
    qk_norm::forward(i.device, out_mut, rstd, qkv, q.view(), k.view(), EPS, HEADS)?;
    Ok(out)
}

fn rope_forward(i: &Inputs<'_>) -> Result<Tensor> {
    let mut qkv = i.normal([T, HEADS.qkv_dim()], 1)?;
    let angles: Vec<f32> = (0..T * 16).map(|k| k as f32 * 0.01).collect();
    let cos = i.upload([T, 16], &angles.iter().map(|a| a.cos()).collect::<Vec<_>>())?;
    let sin = i.upload([T, 16], &angles.iter().map(|a| a.sin()).collect::<Vec<_>>())?;
    let positions = i.ids(&below(T, T as u32, 2))?;
    let (cos, sin) = (cos.view(), sin.view());
    rope::forward(i.device, qkv.view_mut(), positions.view(), cos, sin, HEADS)?;
    Ok(qkv)
}

fn matmul_forward(i: &Inputs<'_>) -> Result<Tensor> {
    let (mut out, a, b) = (i.out([T, V])?, i.normal([T, C], 1)?, i.normal([V, C], 2)?);
    let (a, b) = (a.view(), b.view());
    matmul::matmul(i.device, out.view_mut(), a, b, None, Layout::NT, Accumulate::No)?;
    Ok(out)
}

/// Attention of two documents, and what its backward pass needs.
fn attend(i: &Inputs<'_>) -> Result<[Tensor; 4]> {
    let (mut out, mut lse) = (i.out([T, HEADS.q_dim()])?, i.sums([T, HEADS.num_heads])?);
    let (qkv, ends) = (i.normal([T, HEADS.qkv_dim()], 1)?, i.ids(&[0, 5, T as i32])?);
    let (out_mut, lse_mut) = (out.view_mut(), lse.view_mut());
    attention::forward(i.device, out_mut, lse_mut, qkv.view(), ends.view(), SCALE, HEADS)?;
    Ok([out, lse, qkv, ends])
}

fn attention_forward(i: &Inputs<'_>) -> Result<Tensor> {
    let [out, ..] = attend(i)?;
    Ok(out)
}

fn attention_backward(i: &Inputs<'_>) -> Result<Tensor> {
    let [out, lse, qkv, ends] = attend(i)?;
    let (mut dqkv, dout) = (i.out([T, HEADS.qkv_dim()])?, i.normal([T, HEADS.q_dim()], 2)?);
    let (dqkv_mut, dout, qkv) = (dqkv.view_mut(), dout.view(), qkv.view());
    let (out, lse, ends) = (out.view(), lse.view(), ends.view());
    attention::backward(i.device, dqkv_mut, dout, qkv, out, lse, ends, SCALE, HEADS)?;
    Ok(dqkv)
}

fn attention_decode(i: &Inputs<'_>) -> Result<Tensor> {
    const SLOTS: usize = 16;
    let (batch, width) = (2, HEADS.kv_dim());
    let (mut out, qkv) = (i.out([batch, HEADS.q_dim()])?, i.normal([batch, HEADS.qkv_dim()], 1)?);
    let mut k = i.normal([batch * SLOTS, width], 2)?;
    let mut v = i.normal([batch * SLOTS, width], 3)?;
    let (rows, lengths) = (i.ids(&[4, 27])?, i.ids(&[5, 12])?);
    let (k_mut, v_mut) = (k.view_mut(), v.view_mut());
    attention::store_kv(i.device, k_mut, v_mut, qkv.view(), rows.view(), HEADS)?;
    let shape = [batch, SLOTS, width];
    let (k, v) = (k.view().reshape(shape), v.view().reshape(shape));
    let (out_mut, lengths) = (out.view_mut(), lengths.view());
    attention::decode(i.device, out_mut, qkv.view(), k, v, lengths, SCALE, HEADS)?;
    Ok(out)
}

fn swiglu_forward(i: &Inputs<'_>) -> Result<Tensor> {
    let mut y = i.out([T, C])?;
    swiglu::forward(i.device, y.view_mut(), i.normal([T, 2 * C], 1)?.view())?;
    Ok(y)
}

fn cross_entropy_loss(i: &Inputs<'_>) -> Result<Tensor> {
    let (mut losses, mut logits) = (i.sums([T])?, i.normal([T, V], 1)?);
    let targets = i.ids(&below(T, V as u32, 2))?;
    let (nll, logits_mut) = (losses.view_mut(), logits.view_mut());
    cross_entropy::forward_backward(i.device, nll, logits_mut, targets.view(), 0.5)?;
    Ok(losses)
}

fn reduce_sum_squares(i: &Inputs<'_>) -> Result<Tensor> {
    let mut sum = Tensor::zeros(i.device, "a sum", [1], DType::F64)?;
    let x = i.upload([1000], &normal(1000, 1.0, 1))?;
    reduce::sum_squares(i.device, sum.view_mut(), x.view())?;
    Ok(sum)
}

fn elementwise_cast(i: &Inputs<'_>) -> Result<Tensor> {
    let mut out = i.sums([1000])?;
    elementwise::cast(i.device, out.view_mut(), i.normal([1000], 1)?.view())?;
    Ok(out)
}

fn adamw_step(i: &Inputs<'_>) -> Result<Tensor> {
    let (mut weights, grads) = (i.normal([300], 1)?, i.upload([300], &normal(300, 1.0, 2))?);
    let (mut m, mut v) = (i.sums([300])?, i.sums([300])?);
    let hyper = Hyper {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        grad_scale: 1.0,
        step: 1,
    };
    let (m, v, grads) = (m.view_mut(), v.view_mut(), grads.view());
    match i.dtype {
        DType::BF16 => {
            let mut master = i.upload([300], &normal(300, 1.0, 1))?;
            let (weights, master) = (weights.view_mut(), master.view_mut());
            adamw::step_master(i.device, weights, master, m, v, grads, &hyper)?;
        }
        _ => adamw::step(i.device, weights.view_mut(), m, v, grads, &hyper)?,
    }
    Ok(weights)
}

/// Logits that bf16 holds exactly, so that both choose the same.
fn sample_likeliest(i: &Inputs<'_>) -> Result<Tensor> {
    let logits: Vec<f32> = below(8 * V, 1 << 8, 1).iter().map(|&x| x as f32).collect();
    let exact = i.upload([8, V], &logits)?;
    let mut logits = i.out([8, V])?;
    elementwise::cast(i.device, logits.view_mut(), exact.view())?;
    let mut ids = i.ids(&[0; 8])?;
    let greedy = Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };
    sample::sample(i.device, ids.view_mut(), logits.view(), V, &greedy, 0, 0)?;
    Ok(ids)
}

/// Fails, naming them, if any check failed.
pub fn verdict(checks: &[Check]) -> Result<()> {
    let failed: Vec<&str> =
        checks.iter().filter(|check| !check.passed).map(|check| check.name).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::Device { problem: format!("wrong or no results from {}", failed.join(", ")) })
}

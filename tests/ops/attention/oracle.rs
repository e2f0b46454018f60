//! Attention and its gradient from the definition, one scalar at a time in f64.

use hooke::ops::Heads;

/// What the operator must produce.
pub struct Want {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
    pub dqkv: Vec<f64>,
}

/// Whole softmax rows, no tiles; `dout` is the gradient of `out`.
pub fn attention(qkv: &[f64], dout: &[f64], lengths: &[usize], scale: f64, heads: Heads) -> Want {
    rounded(qkv, dout, lengths, scale, heads, |x| x)
}

/// The same with `round` wherever the bf16 kernels round: probabilities (not yet normalised in the
/// forward pass), gradients of scores, and results.
pub fn rounded(
    qkv: &[f64],
    dout: &[f64],
    lengths: &[usize],
    scale: f64,
    heads: Heads,
    round: fn(f64) -> f64,
) -> Want {
    let Heads { num_heads: h_n, num_kv_heads: g_n, head_dim: d_n } = heads;
    let width = (h_n + 2 * g_n) * d_n;
    let q_at = |t: usize, h: usize, d: usize| t * width + h * d_n + d;
    let k_at = |t: usize, g: usize, d: usize| t * width + (h_n + g) * d_n + d;
    let v_at = |t: usize, g: usize, d: usize| t * width + (h_n + g_n + g) * d_n + d;
    let o_at = |t: usize, h: usize, d: usize| (t * h_n + h) * d_n + d;
    let num_tokens: usize = lengths.iter().sum();
    let mut want = Want {
        out: vec![0.0; num_tokens * h_n * d_n],
        lse: vec![0.0; num_tokens * h_n],
        dqkv: vec![0.0; qkv.len()],
    };
    let mut start = 0;
    for &length in lengths {
        for t in start..start + length {
            for h in 0..h_n {
                let g = h * g_n / h_n;
                let score = |j: usize| -> f64 {
                    (0..d_n).map(|d| qkv[q_at(t, h, d)] * qkv[k_at(j, g, d)]).sum::<f64>() * scale
                };
                let scores: Vec<f64> = (start..=t).map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                want.lse[t * h_n + h] = top + total.ln();
                let p: Vec<f64> = scores.iter().map(|s| (s - top).exp() / total).collect();
                for (j, s) in (start..=t).zip(&scores) {
                    let p = round((s - top).exp()) / total;
                    for d in 0..d_n {
                        want.out[o_at(t, h, d)] += p * qkv[v_at(j, g, d)];
                    }
                }
                let columns = o_at(t, h, 0)..o_at(t, h, 0) + d_n;
                want.out[columns.clone()].iter_mut().for_each(|x| *x = round(*x));
                let (dout, out) = (&dout[columns.clone()], &want.out[columns]);
                let delta: f64 = dout.iter().zip(out).map(|(dout, out)| dout * out).sum();
                for (p, j) in p.into_iter().zip(start..) {
                    let dp: f64 = (0..d_n).map(|d| dout[d] * qkv[v_at(j, g, d)]).sum();
                    let (p, ds) = (round(p), round(p * (dp - delta)) * scale);
                    for d in 0..d_n {
                        want.dqkv[q_at(t, h, d)] += ds * qkv[k_at(j, g, d)];
                        want.dqkv[k_at(j, g, d)] += ds * qkv[q_at(t, h, d)];
                        want.dqkv[v_at(j, g, d)] += p * dout[d];
                    }
                }
            }
        }
        start += length;
    }
    want.dqkv.iter_mut().for_each(|x| *x = round(*x));
    want
}

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
                let dp: Vec<f64> = (start..=t)
                    .map(|j| (0..d_n).map(|d| dout[o_at(t, h, d)] * qkv[v_at(j, g, d)]).sum())
                    .collect();
                let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for (i, j) in (start..=t).enumerate() {
                    let ds = p[i] * (dp[i] - mean) * scale;
                    for d in 0..d_n {
                        want.out[o_at(t, h, d)] += p[i] * qkv[v_at(j, g, d)];
                        want.dqkv[q_at(t, h, d)] += ds * qkv[k_at(j, g, d)];
                        want.dqkv[k_at(j, g, d)] += ds * qkv[q_at(t, h, d)];
                        want.dqkv[v_at(j, g, d)] += p[i] * dout[o_at(t, h, d)];
                    }
                }
            }
        }
        start += length;
    }
    want
}

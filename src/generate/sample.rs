//! Choice of the next token from its logits.

use crate::error::{Error, Result};
use crate::rng::{Stream, words};

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0: the likeliest token. Otherwise logits are divided by it.
    pub temperature: f64,
    /// Keep the fewest likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f64,
    /// Keep this many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Decides every draw, together with row and position.
    pub seed: u64,
}

/// The chosen id: a pure function of the logits, the settings and `address` = [row, position].
///
/// Temperature, then top-k, then top-p, as in transformers. Ties go to the smaller id.
/// Errors: [`Error::Overflow`] if a logit is NaN or +∞.
pub fn sample(logits: &[f64], sampling: &Sampling, address: [u32; 2]) -> Result<u32> {
    if let Some(id) = logits.iter().position(|x| x.is_nan() || *x == f64::INFINITY) {
        return Err(Error::Overflow {
            problem: format!("the logit of token {id} is {}", logits[id]),
            fix: "this model's weights lead beyond f32; use one whose training did not diverge"
                .into(),
        });
    }
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    let by_logit = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    if sampling.temperature == 0.0 || sampling.top_k == 1 {
        let best = ids.into_iter().min_by(by_logit);
        return Ok(best.unwrap_or(0) as u32);
    }
    if 0 < sampling.top_k && sampling.top_k < ids.len() {
        ids.select_nth_unstable_by(sampling.top_k - 1, by_logit);
        ids.truncate(sampling.top_k);
    }
    ids.sort_unstable_by(by_logit);
    let max = ids.first().map_or(0.0, |&id| logits[id]);
    let weights: Vec<f64> =
        ids.iter().map(|&id| ((logits[id] - max) / sampling.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = weights.len();
    if sampling.top_p < 1.0 {
        let mut sum = 0.0;
        for (i, weight) in weights.iter().enumerate() {
            sum += weight / total;
            if sum >= sampling.top_p {
                kept = i + 1;
                break;
            }
        }
    }
    let kept_total: f64 = weights[..kept].iter().sum();
    let [high, low, ..] = words(sampling.seed, Stream::Sample, [address[0], address[1], 0]);
    // 53 random bits: every f64 in [0, 1) that a uniform draw can reach.
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    let mut remaining = bits as f64 / (1u64 << 53) as f64 * kept_total;
    for (&id, weight) in ids.iter().zip(&weights[..kept]) {
        remaining -= weight;
        if remaining < 0.0 {
            return Ok(id as u32);
        }
    }
    // Rounding left a sliver beyond the last weight.
    Ok(ids.get(kept - 1).copied().unwrap_or(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(temperature: f64, top_p: f64, top_k: usize) -> Sampling {
        Sampling { temperature, top_p, top_k, seed: 7 }
    }

    fn frequencies(logits: &[f64], sampling: Sampling, draws: u32) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for position in 0..draws {
            counts[sample(logits, &sampling, [3, position]).unwrap() as usize] += 1.0;
        }
        counts.iter().map(|n| n / f64::from(draws)).collect()
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_the_first_of_equals() {
        assert_eq!(sample(&[0.0, 3.0, 1.0, 3.0], &settings(0.0, 1.0, 0), [0, 0]).unwrap(), 1);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0, 1.0, 2.0, f64::NEG_INFINITY];
        let got = frequencies(&logits, settings(1.0, 1.0, 0), 20_000);
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        for (f, x) in got.iter().zip(logits) {
            let p = x.exp() / total;
            // Four standard errors of a frequency.
            assert!((f - p).abs() <= 4.0 * (p * (1.0 - p) / 20_000.0).sqrt(), "{f} for {p}");
        }
    }

    #[test]
    fn top_k_and_top_p_keep_the_likeliest_only() {
        let logits = [1.0, 2.0, 3.0, 0.0];
        let got = frequencies(&logits, settings(1.0, 1.0, 2), 2_000);
        assert!(got[0] == 0.0 && got[3] == 0.0 && got[1] > 0.2);
        // Probabilities .64 .24 .09 .03: two of them reach .8, one reaches .6.
        let got = frequencies(&logits, settings(1.0, 0.8, 0), 2_000);
        assert!(got[0] == 0.0 && got[3] == 0.0 && got[1] > 0.2);
        assert_eq!(frequencies(&logits, settings(1.0, 0.6, 0), 100)[2], 1.0);
    }

    #[test]
    fn broken_logits_are_an_error() {
        for broken in [f64::NAN, f64::INFINITY] {
            let error = sample(&[0.0, broken], &settings(1.0, 1.0, 0), [0, 0]).unwrap_err();
            assert_eq!(error.exit_code(), 6, "{error}");
        }
    }
}

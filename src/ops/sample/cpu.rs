//! CPU reference: sorts the vocabulary.

use super::{INVALID, Sampling};
use crate::dtype::Real;
use crate::rng::{Stream, words};

/// The chosen id; `address` = [row, position].
pub(super) fn sample<T: Real>(logits: &[T], sampling: &Sampling, address: [u32; 2]) -> i32 {
    let logits: Vec<f64> = logits.iter().map(|x| x.to_f64()).collect();
    let broken = logits.iter().any(|x| x.is_nan() || *x == f64::INFINITY);
    if broken || logits.iter().all(|x| *x == f64::NEG_INFINITY) {
        return INVALID;
    }
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    let by_logit = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    if sampling.temperature == 0.0 || sampling.top_k == 1 {
        let best = ids.into_iter().min_by(by_logit);
        return best.map_or(INVALID, |id| id as i32);
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
            return id as i32;
        }
    }
    // Rounding left a sliver beyond the last weight.
    ids.get(kept - 1).map_or(INVALID, |&id| id as i32)
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
            counts[sample(logits, &sampling, [3, position]) as usize] += 1.0;
        }
        counts.iter().map(|n| n / f64::from(draws)).collect()
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_the_first_of_equals() {
        assert_eq!(sample(&[0.0, 3.0, 1.0, 3.0], &settings(0.0, 1.0, 0), [0, 0]), 1);
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
    fn a_row_without_a_distribution_is_invalid() {
        let none = f64::NEG_INFINITY;
        for logits in [[0.0, f64::NAN], [f64::INFINITY, 0.0], [none, none]] {
            for temperature in [0.0, 1.0] {
                assert_eq!(sample(&logits, &settings(temperature, 1.0, 0), [0, 0]), INVALID);
            }
        }
    }
}

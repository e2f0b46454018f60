//! Stochastic rounding of f32 to bf16, with bits that are a function of what is rounded.
//!
//! A value between two neighbours goes up with probability equal to its distance from the lower one
//! (in 65536ths of the gap), so that what is rounded away comes back on average: an update of a
//! weight, mostly smaller than half its last bit, would otherwise be lost every time.

use crate::rng::{self, Stream};
use half::bf16;

/// Where the random bits of a range of parameters come from.
///
/// They depend on the seed, the step and the number of the element, not on anything that happened
/// before, and no two values share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounding {
    /// The run's seed.
    pub seed: u64,
    /// Number of the range's first element, a multiple of 8; ranges must not overlap.
    pub first_element: u64,
}

/// What is rounded for one element.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Value {
    Weight = 0,
    M = 1,
    V = 2,
}

/// Sixteen random bits for each of the eight elements from 8 · `group` on.
pub(super) fn dither(seed: u64, step: u32, group: u64, value: Value) -> [u32; 8] {
    let high = (group >> 32) as u32 | (value as u32) << 30;
    let words = rng::words(seed, Stream::Rounding, [group as u32, high, step]);
    std::array::from_fn(|i| words[i / 2] >> (i % 2 * 16) & 0xffff)
}

/// Rounds to the neighbour below or above. Finite stays finite (beyond the largest bf16 it rounds
/// down), infinite stays infinite, NaN stays NaN; what bf16 can hold, zeros included, is unchanged.
pub(super) fn round_stochastic(x: f32, dither: u32) -> bf16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return bf16::from_bits((bits >> 16) as u16 | 0x40);
    }
    // Within a sign, bit patterns are ordered like magnitudes, also across binades.
    let rounded = (bits + dither) >> 16;
    let overflow = x.is_finite() && rounded & 0x7fff == 0x7f80;
    bf16::from_bits((rounded - u32::from(overflow)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_values_keep_their_kind() {
        let max = bf16::MAX.to_f32();
        for dither in [0, 1, 0x7fff, 0x8000, 0xffff] {
            let round = |x: f32| round_stochastic(x, dither).to_f32();
            for exact in [0.0, -0.0, 1.0, -2.5, max, -max, f32::INFINITY, f32::NEG_INFINITY] {
                assert_eq!(round(exact).to_bits(), exact.to_bits(), "{exact} with {dither}");
            }
            let subnormal = f32::from_bits(3 << 16);
            assert_eq!(round(subnormal), subnormal);
            // Finite beyond the largest bf16: not infinite.
            assert_eq!((round(f32::MAX), round(-f32::MAX)), (max, -max));
            for nan in [0x7f80_0001, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff] {
                assert!(round(f32::from_bits(nan)).is_nan(), "{nan:x} with {dither}");
            }
        }
    }

    #[test]
    fn exactly_the_fraction_of_all_dithers_rounds_up() {
        for (x, low) in [(1.0f32, 0x3f80), (-1.0, 0xbf80), (1.99e-39, 0x0015), (3.0e38, 0x7f61)] {
            let low_bits = (x.to_bits() & 0xffff_0000) | (u32::from(low as u16) << 16);
            for fraction in [0u32, 1, 0x4000, 0xffff] {
                let value = f32::from_bits(low_bits & 0xffff_0000 | fraction);
                let up = (0..=0xffff)
                    .filter(|&d| round_stochastic(value, d).to_bits() != (low_bits >> 16) as u16)
                    .count();
                assert_eq!(up, fraction as usize, "{value:e}");
            }
        }
    }

    #[test]
    fn no_two_values_share_their_bits() {
        // 3 values of 64 elements at 2 steps: 384 halves of words from distinct addresses. With 16
        // bits each about one pair in 65536 agrees by chance: 73500 pairs, so a few, not hundreds.
        let mut all = Vec::new();
        for step in [1, 2] {
            for group in 0..8 {
                for value in [Value::Weight, Value::M, Value::V] {
                    all.extend(dither(7, step, group, value));
                }
            }
        }
        all.sort_unstable();
        let equal = all.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(equal < 10, "{equal} equal");
        // Far groups have addresses of their own too.
        assert_ne!(dither(7, 1, 0, Value::Weight), dither(7, 1, 1 << 32, Value::Weight));
        assert_ne!(dither(7, 1, 0, Value::Weight), dither(8, 1, 0, Value::Weight));
    }

    #[test]
    fn the_mean_of_many_roundings_is_the_value_and_neighbours_are_independent() {
        // bf16 neighbours of 1.003 are 1 and 1.0078125: up with p = 0.384.
        let x = 1.003f32;
        let p = (f64::from(x) - 1.0) * 128.0;
        let n = 1_000_000;
        let ups: Vec<f64> = (0..n / 8)
            .flat_map(|group| dither(1, 1, group, Value::Weight))
            .map(|d| f64::from(u8::from(round_stochastic(x, d) > bf16::ONE)) - p)
            .collect();
        // Four standard errors: sqrt(p (1 - p) / n) of the mean, p (1 - p) / sqrt(n) of the product.
        let mean = ups.iter().sum::<f64>() / n as f64;
        assert!(mean.abs() < 4.0 * (p * (1.0 - p) / n as f64).sqrt(), "bias {mean}");
        let product = ups.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n as f64;
        assert!(product.abs() < 4.0 * p * (1.0 - p) / (n as f64).sqrt(), "correlation {product}");
    }
}

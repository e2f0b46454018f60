//! Seeded inputs for tests and benchmarks.

use crate::dtype::Real;
use crate::rng::{Sequence, Stream};

/// `n` standard normal values times `scale`; the same for every type up to its rounding.
pub fn normal<T: Real>(n: usize, scale: f64, seed: u64) -> Vec<T> {
    let mut random = Sequence::new(seed, Stream::Test, [0, 0]);
    // Rounded through f32, so that f32 and f64 see the very same numbers.
    (0..n).map(|_| T::from_f64(f64::from((random.next_normal() * scale) as f32))).collect()
}

/// `n` integers uniform in 0 .. `bound`.
pub fn below(n: usize, bound: u32, seed: u64) -> Vec<i32> {
    let mut random = Sequence::new(seed, Stream::Test, [1, 0]);
    (0..n).map(|_| random.next_below(bound) as i32).collect()
}

/// Values as f64, for comparison.
pub fn to_f64<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| x.to_f64()).collect()
}

//! Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
//!
//! A number is a pure function of (seed, stream, counter), so nothing random is state: what a
//! step or a sample draws does not depend on what was drawn before it, on threads or on resume.

/// What a stream of numbers is for; part of the address, so that uses never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Order of the rows within an epoch.
    Shuffle = 1,
    /// Choice of the next token.
    Sample = 2,
    /// Initial weights.
    Init = 3,
    /// Inputs made for tests and benchmarks.
    Test = 4,
    /// Which neighbour stochastic rounding takes.
    Rounding = 5,
}

/// Four independent 32-bit words for one address.
pub fn words(seed: u64, stream: Stream, counter: [u32; 3]) -> [u32; 4] {
    philox([counter[0], counter[1], counter[2], stream as u32], seed)
}

/// The bijection: ten rounds over a counter of four words.
fn philox(counter: [u32; 4], seed: u64) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut c = counter;
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [
            (product1 >> 32) as u32 ^ c[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ c[3] ^ key[1],
            product0 as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

/// A sequence of numbers from one address on, for loops that need many.
#[derive(Debug, Clone)]
pub struct Sequence {
    seed: u64,
    stream: Stream,
    high: [u32; 2],
    next: u32,
    buffer: [u32; 4],
    used: usize,
}

impl Sequence {
    /// Starts at counter (0, `high[0]`, `high[1]`).
    pub fn new(seed: u64, stream: Stream, high: [u32; 2]) -> Self {
        Self { seed, stream, high, next: 0, buffer: [0; 4], used: 4 }
    }

    /// The next 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.buffer = words(self.seed, self.stream, [self.next, self.high[0], self.high[1]]);
            self.next = self.next.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    /// Uniform in [0, 1), 32 bits of resolution.
    pub fn next_uniform(&mut self) -> f64 {
        f64::from(self.next_u32()) / 4_294_967_296.0
    }

    /// Uniform in 0 .. `bound` without bias, by rejection; `bound` must not be 0.
    pub fn next_below(&mut self, bound: u32) -> u32 {
        let zone = u32::MAX - (u32::MAX % bound + 1) % bound;
        loop {
            let x = self.next_u32();
            if x <= zone {
                return x % bound;
            }
        }
    }

    /// Standard normal, by Box and Muller.
    pub fn next_normal(&mut self) -> f64 {
        let u = 1.0 - self.next_uniform();
        let v = self.next_uniform();
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// The permutation of `0 .. n` that an epoch visits its rows in.
pub fn permutation(n: usize, seed: u64, epoch: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    let mut random = Sequence::new(seed, Stream::Shuffle, [epoch, 0]);
    for i in (1..n).rev() {
        let j = random.next_below(i as u32 + 1) as usize;
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference vectors published with Random123 (key and counter all zeros, all ones).
    #[test]
    fn philox_matches_its_published_vectors() {
        assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], u64::MAX),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(words(7, Stream::Sample, [1, 2, 3]), philox([1, 2, 3, 2], 7));
    }

    #[test]
    fn permutations_are_permutations_and_differ_between_epochs() {
        let a = permutation(101, 42, 0);
        let mut sorted = a.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..101).collect::<Vec<_>>());
        assert_eq!(a, permutation(101, 42, 0));
        assert_ne!(a, permutation(101, 42, 1));
        assert!(permutation(0, 1, 0).is_empty());
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let mut s = Sequence::new(1, Stream::Test, [0, 0]);
        let draws: Vec<f64> = (0..20_000).map(|_| s.next_normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        // Four standard errors: 4/√20000 and 4·√(2/20000).
        assert!(mean.abs() < 0.0283, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.04, "variance {variance}");
    }
}

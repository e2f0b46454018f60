//! Operators: reference against f64, gradients against differences, edge sizes, threads.

mod adamw;
mod adamw_states;
pub mod attention;
mod cross_entropy;
mod elementwise;
mod embedding;
mod matmul;
mod qk_norm;
mod reduce;
mod rmsnorm;
mod rope;
mod sample;
mod swiglu;

use hooke::dtype::Real;
use rayon::ThreadPoolBuilder;

/// Sizes where tails, vector widths and blocks go wrong: one, primes, the odd FFN of the
/// embedded model, one past a power of two.
pub const EDGE_SIZES: [usize; 6] = [1, 2, 7, 65, 127, 341];

/// Runs `f` on pools of one, two and three threads and demands the same bits.
#[track_caller]
pub fn assert_same_bits_for_any_thread_count<T: Real>(what: &str, f: impl Fn() -> Vec<T> + Sync) {
    let run = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&f)
    };
    let one = run(1);
    for threads in [2, 3] {
        let many = run(threads);
        let differs =
            one.iter().zip(&many).position(|(a, b)| a.to_f64().to_bits() != b.to_f64().to_bits());
        assert_eq!(differs, None, "{what}: 1 and {threads} threads differ at this index");
        assert_eq!(one.len(), many.len());
    }
}

//! adamw with smaller states: against the formula in f64, bias, bounds, convergence, contract.

use super::EDGE_SIZES;
use half::bf16;
use hooke::device::Device;
use hooke::ops::adamw::codes::{BLOCK, decode_m, decode_v};
use hooke::ops::adamw::{CodesMut, Hyper, Rounding, step_blockwise, step_master, step_rounded};
use hooke::rng::{Sequence, Stream};
use hooke::tensor::{View, ViewMut};
use hooke::testing::compare::assert_close;
use hooke::testing::fill::{normal, to_f64};

const HYPER: Hyper = Hyper {
    learning_rate: 0.01,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    grad_scale: 0.5,
    step: 1,
};
const ROUNDING: Rounding = Rounding { seed: 11, first_element: 0 };

/// (weight, m, v) after one step, in f64.
fn oracle([weight, m, v]: [f64; 3], grad: f64, hyper: &Hyper) -> [f64; 3] {
    let g = grad * hyper.grad_scale;
    let m = hyper.beta1 * m + (1.0 - hyper.beta1) * g;
    let v = hyper.beta2 * v + (1.0 - hyper.beta2) * g * g;
    let m_hat = m / (1.0 - hyper.beta1.powi(hyper.step as i32));
    let v_hat = v / (1.0 - hyper.beta2.powi(hyper.step as i32));
    let update = m_hat / (v_hat.sqrt() + hyper.epsilon) + hyper.weight_decay * weight;
    [weight - hyper.learning_rate * update, m, v]
}

/// Weights, m and v in bf16.
#[derive(Clone)]
struct Rounded([Vec<bf16>; 3]);

impl Rounded {
    fn new(weights: &[f32]) -> Self {
        let zeros = vec![bf16::ZERO; weights.len()];
        let weights = weights.iter().copied().map(bf16::from_f32).collect();
        Self([weights, zeros.clone(), zeros])
    }

    fn step(&mut self, grads: &[f32], hyper: &Hyper, rounding: Rounding) {
        let n = grads.len();
        let [weights, m, v] = self.0.each_mut().map(|x| ViewMut::from_host(x, [n]));
        let grads = View::from_host(grads, [n]);
        step_rounded(&Device::Cpu, weights, m, v, grads, hyper, rounding).unwrap();
    }
}

/// f32 weights with moments in eight bits.
#[derive(Clone)]
struct Blockwise {
    weights: Vec<f32>,
    codes: [Vec<u8>; 2],
    scales: [Vec<f32>; 2],
}

impl Blockwise {
    fn new(weights: &[f32]) -> Self {
        let (n, blocks) = (weights.len(), weights.len().div_ceil(BLOCK));
        let (codes, scales) = (vec![0; n], vec![0.0; blocks]);
        Self {
            weights: weights.to_vec(),
            codes: [codes.clone(), codes],
            scales: [scales.clone(), scales],
        }
    }

    fn step(&mut self, grads: &[f32], hyper: &Hyper, rounding: Rounding) {
        let (n, blocks) = (grads.len(), grads.len().div_ceil(BLOCK));
        let [m, v] = self.codes.each_mut().map(|x| ViewMut::from_host(x, [n]));
        let [m_scales, v_scales] = self.scales.each_mut().map(|x| ViewMut::from_host(x, [blocks]));
        step_blockwise(
            &Device::Cpu,
            ViewMut::from_host(&mut self.weights, [n]),
            CodesMut { codes: m, scales: m_scales },
            CodesMut { codes: v, scales: v_scales },
            View::from_host(grads, [n]),
            hyper,
            rounding,
        )
        .unwrap();
    }

    /// The moments that the codes stand for.
    fn moments(&self, i: usize) -> [f64; 2] {
        let [m, v] = [decode_m(self.codes[0][i]), decode_v(self.codes[1][i])].map(f64::from);
        [m * f64::from(self.scales[0][i / BLOCK]), v * f64::from(self.scales[1][i / BLOCK])]
    }
}

#[test]
fn master_weights_follow_the_formula_and_are_rounded_to_nearest() {
    for n in EDGE_SIZES.into_iter().chain([16_385]) {
        let mut master = normal::<f32>(n, 1.0, 1);
        let (mut m, mut v) = (vec![0.0f32; n], vec![0.0f32; n]);
        let mut weights = vec![bf16::NAN; n];
        let mut want: Vec<[f64; 3]> = to_f64(&master).iter().map(|&w| [w, 0.0, 0.0]).collect();
        for step in 1..=6 {
            let hyper = Hyper { step, ..HYPER };
            let grads = normal::<f32>(n, 0.1, 10 + step);
            step_master(
                &Device::Cpu,
                ViewMut::from_host(&mut weights, [n]),
                ViewMut::from_host(&mut master, [n]),
                ViewMut::from_host(&mut m, [n]),
                ViewMut::from_host(&mut v, [n]),
                View::from_host(&grads, [n]),
                &hyper,
            )
            .unwrap();
            for (want, grad) in want.iter_mut().zip(grads) {
                *want = oracle(*want, grad.into(), &hyper);
            }
        }
        // As for f32 weights: six steps of about ten roundings, twice for the worst of many.
        let tolerance = 40.0 * f64::from(f32::EPSILON) / 2.0;
        let column = |i: usize| -> Vec<f64> { want.iter().map(|w| w[i]).collect() };
        for (i, got) in [&master, &m, &v].into_iter().enumerate() {
            assert_close(&format!("tensor {i} of n={n}"), &to_f64(got), &column(i), tolerance);
        }
        let nearest: Vec<bf16> = master.iter().copied().map(bf16::from_f32).collect();
        assert_eq!(weights, nearest);
    }
}

#[test]
fn rounded_states_are_neighbours_of_the_formula() {
    for n in EDGE_SIZES.into_iter().chain([16_385]) {
        let mut state = Rounded::new(&normal::<f32>(n, 1.0, 1));
        for step in 1..=3 {
            let (hyper, before) = (Hyper { step, ..HYPER }, state.clone());
            let grads = normal::<f32>(n, 0.1, 10 + step);
            state.step(&grads, &hyper, ROUNDING);
            for i in 0..n {
                let old = before.0.each_ref().map(|x| x[i].to_f64());
                let want = oracle(old, grads[i].into(), &hyper);
                for (got, want) in state.0.each_ref().map(|x| x[i].to_f64()).iter().zip(want) {
                    // Less than one unit of the last of eight bits away, and an error in f32.
                    let bound = want.abs() * (2f64.powi(-7) + 1e-6) + 1e-6 * old[0].abs() * 0.01;
                    assert!((got - want).abs() <= bound, "n={n} step {step}: {got} {want}");
                }
            }
        }
    }
}

/// An update of a hundredth of a unit of the weight: rounding to nearest would lose every one.
#[test]
fn small_updates_are_not_lost_on_average() {
    let n = 4096;
    let hyper =
        Hyper { weight_decay: 0.0, grad_scale: 1.0, learning_rate: 2f64.powi(-7) / 100.0, ..HYPER };
    let mut state = Rounded::new(&vec![1.5; n]);
    let steps = 50;
    for step in 1..=steps {
        // A constant gradient: m / sqrt(v) is 1 at every step, but for the rounding of m and v.
        state.step(&vec![1.0; n], &Hyper { step, ..hyper }, ROUNDING);
    }
    let mean = state.0[0].iter().map(|w| w.to_f64()).sum::<f64>() / n as f64;
    let moved = 1.5 - mean;
    let want = hyper.learning_rate * steps as f64;
    // Every step moves one unit with probability 1/100: variance units^2 / 100 each; four standard
    // errors of the mean over n. The moments' own rounding, 2^-9 of them and unbiased, but for
    // the root of v: an eighth of its relative variance, below 1e-4.
    let error = 4.0 * 2f64.powi(-7) * (steps as f64 / 100.0 / n as f64).sqrt() + 1e-3 * want;
    assert!((moved - want).abs() < error, "moved {moved}, want {want} +- {error}");
}

#[test]
fn codes_are_neighbours_of_the_formula() {
    for n in EDGE_SIZES.into_iter().chain([256, 16_385]) {
        let mut state = Blockwise::new(&normal::<f32>(n, 1.0, 1));
        for step in 1..=4 {
            let (hyper, before) = (Hyper { step, ..HYPER }, state.clone());
            let grads = normal::<f32>(n, 0.1, 10 + step);
            state.step(&grads, &hyper, ROUNDING);
            for (i, &grad) in grads.iter().enumerate() {
                let [m, v] = before.moments(i);
                let weight = f64::from(before.weights[i]);
                let [weight, m, v] = oracle([weight, m, v], grad.into(), &hyper);
                assert!(
                    (f64::from(state.weights[i]) - weight).abs() <= 4e-7 * weight.abs().max(0.1)
                );
                let [got_m, got_v] = state.moments(i);
                // Neighbours are at most an eighth apart; below the smallest code, by that.
                let scales =
                    [state.scales[0][i / BLOCK], state.scales[1][i / BLOCK]].map(f64::from);
                let bound = m.abs() / 8.0 + 1.25 * 2f64.powi(-16) * scales[0];
                assert!((got_m - m).abs() <= bound, "n={n} step {step} m: {got_m:e} {m:e}");
                let bound = v / 8.0 + 1.25 * 2f64.powi(-32) * scales[1];
                assert!((got_v - v).abs() <= bound, "n={n} step {step} v: {got_v:e} {v:e}");
                assert!(m.abs() <= scales[0] && v <= scales[1], "the block fits its scale");
            }
        }
    }
}

/// A block whose gradients span 16 orders of magnitude, which no eight-bit map covers (and f32 squares
/// just so).
#[test]
fn updates_stay_bounded_however_different_the_gradients_of_a_block_are() {
    let n = 2 * BLOCK;
    let hyper = Hyper { weight_decay: 0.0, grad_scale: 1.0, epsilon: 1e-30, ..HYPER };
    let mut state = Blockwise::new(&vec![0.0; n]);
    let mut random = Sequence::new(3, Stream::Test, [0, 0]);
    for step in 1..=200 {
        let grads: Vec<f32> = (0..n)
            .map(|i| (random.next_normal() * 10f64.powi(-((i % 17) as i32))) as f32)
            .collect();
        let before = state.weights.clone();
        state.step(&grads, &Hyper { step, ..hyper }, ROUNDING);
        for (i, (before, after)) in before.iter().zip(&state.weights).enumerate() {
            // Exact moments give |m| <= 1.165 sqrt(v) (Cauchy and Schwarz with these betas); scales
            // round up by at most 2, and the corrections of the first steps are below 2.3.
            let update = f64::from((after - before).abs()) / hyper.learning_rate;
            assert!(
                update < 1.165 * 2.0 * 2.3,
                "step {step}, element {i}: {update} learning rates"
            );
            assert!(state.codes[0][i] & 0x7f == 0 || state.codes[1][i] != 0, "v is 0, m is not");
        }
    }
}

/// v falls by a twentieth per step when gradients cease, less than half a code: rounding to nearest
/// would freeze it.
#[test]
fn moments_decay_when_gradients_cease() {
    let n = 16 * BLOCK;
    let mut state = Blockwise::new(&vec![0.0; n]);
    for step in 1..=40 {
        state.step(&vec![if step == 1 { 2.0 } else { 0.0 }; n], &Hyper { step, ..HYPER }, ROUNDING);
    }
    let mean = |moment: usize| (0..n).map(|i| state.moments(i)[moment]).sum::<f64>() / n as f64;
    let want_m = 0.1 * 0.9f64.powi(39);
    let want_v = 0.05 * 0.95f64.powi(39);
    // Each step adds the variance of a code, up to (1/16)^2 relative: about 0.4 after 39 steps, and
    // n = 4096 elements; five standard errors.
    for (got, want) in [(mean(0), want_m), (mean(1), want_v)] {
        assert!((got / want - 1.0).abs() < 5.0 * 0.4 / (n as f64).sqrt(), "{got:e} {want:e}");
    }
}

/// Least squares with noisy gradients: the smaller states reach what f32 reaches.
#[test]
fn smaller_states_converge_like_f32() {
    let n = 1024;
    let target = normal::<f32>(n, 1.0, 1);
    let curvature: Vec<f32> = (0..n).map(|i| 10f32.powi(-((i % 4) as i32))).collect();
    let hyper =
        Hyper { weight_decay: 0.0, grad_scale: 1.0, learning_rate: 0.02, beta2: 0.99, ..HYPER };
    let (mut eight, mut rounded) = (Blockwise::new(&vec![0.0; n]), Rounded::new(&vec![0.0; n]));
    let mut exact: Vec<[f64; 3]> = vec![[0.0; 3]; n];
    let steps = 600;
    for step in 1..=steps {
        let decay = 1.0 - (step - 1) as f64 / steps as f64;
        let hyper = Hyper { step, learning_rate: hyper.learning_rate * decay, ..hyper };
        let noise = normal::<f32>(n, 0.1, 100 + step);
        let grads = |weight: &dyn Fn(usize) -> f32| -> Vec<f32> {
            (0..n).map(|i| curvature[i] * (weight(i) - target[i] + noise[i])).collect()
        };
        let of_eight = grads(&|i| eight.weights[i]);
        let of_rounded = grads(&|i| rounded.0[0][i].to_f32());
        let of_exact = grads(&|i| exact[i][0] as f32);
        eight.step(&of_eight, &hyper, ROUNDING);
        rounded.step(&of_rounded, &hyper, ROUNDING);
        for (state, grad) in exact.iter_mut().zip(of_exact) {
            *state = oracle(*state, grad.into(), &hyper);
        }
    }
    let error = |weight: &dyn Fn(usize) -> f64| -> f64 {
        let squares = (0..n).map(|i| (weight(i) - f64::from(target[i])).powi(2));
        (squares.sum::<f64>() / n as f64).sqrt()
    };
    let exact = error(&|i| exact[i][0]);
    let eight = error(&|i| eight.weights[i].into());
    let rounded = error(&|i| rounded.0[0][i].to_f64());
    // The noise alone leaves `exact`; a bf16 weight of order 1 is off by 2^-8 / sqrt(6) on average.
    assert!(exact < 0.05, "f64: {exact}");
    assert!(eight < 1.1 * exact, "8-bit: {eight}, f64: {exact}");
    assert!(rounded < 1.1 * exact + 2f64.powi(-8), "bf16: {rounded}, f64: {exact}");
}

#[test]
fn bits_depend_on_seed_step_and_element_only() {
    let n = 40_000;
    let weights = normal::<f32>(n, 1.0, 1);
    let grads = normal::<f32>(n, 0.1, 2);
    let run = |rounding: Rounding, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (mut rounded, mut eight) = (Rounded::new(&weights), Blockwise::new(&weights));
        pool.install(|| {
            rounded.step(&grads, &HYPER, rounding);
            eight.step(&grads, &HYPER, rounding);
        });
        (rounded.0, eight.codes)
    };
    let want = run(ROUNDING, 1);
    assert!(run(ROUNDING, 3) == want);
    assert!(run(Rounding { seed: 12, ..ROUNDING }, 1) != want);
    assert!(run(Rounding { first_element: 8, ..ROUNDING }, 1) != want);
    // A part of the range, at its own number, has the bits it has in the whole.
    let (start, len) = (512, 1000);
    let mut part = Rounded::new(&weights[start..start + len]);
    part.step(&grads[start..start + len], &HYPER, Rounding { first_element: 512, ..ROUNDING });
    for (part, whole) in part.0.iter().zip(&want.0) {
        assert_eq!(part[..], whole[start..start + len]);
    }
}

#[test]
fn contract_violations_are_named() {
    let refused = |hyper: &Hyper, rounding: Rounding, grads: usize| {
        let mut state = Rounded::new(&[1.0; 4]);
        let [weights, m, v] = state.0.each_mut().map(|x| ViewMut::from_host(x, [4]));
        let values = vec![1.0f32; grads];
        let grads = View::from_host(&values, [grads]);
        let error = step_rounded(&Device::Cpu, weights, m, v, grads, hyper, rounding);
        assert_eq!(state.0[0], [bf16::ONE; 4]);
        error.unwrap_err().to_string()
    };
    let error = refused(&HYPER, ROUNDING, 5);
    assert_eq!(error, "adamw.step_rounded: grads has shape [5], expected shape [4]");
    let error = refused(&HYPER, Rounding { first_element: 4, ..ROUNDING }, 4);
    assert_eq!(error, "adamw.step_rounded: first_element has 4, expected a multiple of 8");
    let error = refused(&Hyper { step: 1 << 32, ..HYPER }, ROUNDING, 4);
    assert_eq!(error, "adamw.step_rounded: step has 4294967296, expected below 2^32");
    let error = refused(&Hyper { step: 0, ..HYPER }, ROUNDING, 4);
    assert_eq!(error, "adamw.step_rounded: step has 0, expected 1 or more");

    let mut state = Blockwise::new(&[1.0; 4]);
    let [m, v] = state.codes.each_mut().map(|x| ViewMut::from_host(x, [4]));
    let error = step_blockwise(
        &Device::Cpu,
        ViewMut::from_host(&mut state.weights, [4]),
        CodesMut { codes: m, scales: ViewMut::from_host(&mut [0.0f32; 2], [2]) },
        CodesMut { codes: v, scales: ViewMut::from_host(&mut [0.0f32; 1], [1]) },
        View::from_host(&[0.0f32; 4], [4]),
        &HYPER,
        ROUNDING,
    );
    let message = "adamw.step_blockwise: m.scales has shape [2], expected shape [1]";
    assert_eq!(error.unwrap_err().to_string(), message);
    let (mut weights, mut state) = ([bf16::ONE; 2], [[0.0f32; 2]; 3]);
    let [master, m, v] = state.each_mut().map(|x| ViewMut::from_host(x, [2]));
    let error = step_master(
        &Device::Cpu,
        ViewMut::from_host(&mut weights, [2]),
        master,
        m,
        v,
        View::from_host(&[0.0f64; 2], [2]),
        &HYPER,
    );
    let message = "adamw.step_master: grads has f64, expected bf16";
    assert_eq!(error.unwrap_err().to_string(), message);
}

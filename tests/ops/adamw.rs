//! adamw: against the textbook formula in f64, and against numbers from torch.

use super::{EDGE_SIZES, assert_same_bits_for_any_thread_count};
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::error::Result;
use hooke::ops::adamw::{Hyper, step};
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

/// Weights and both moments.
#[derive(Clone)]
struct State<T> {
    weights: Vec<T>,
    m: Vec<T>,
    v: Vec<T>,
}

impl<T: Real> State<T> {
    fn new(weights: &[T]) -> Self {
        let zeros = vec![T::ZERO; weights.len()];
        Self { weights: weights.to_vec(), m: zeros.clone(), v: zeros }
    }

    fn step(&mut self, grads: &[T], hyper: &Hyper) -> Result<()> {
        let n = grads.len();
        step(
            &Device::Cpu,
            ViewMut::from_host(&mut self.weights, [n]),
            ViewMut::from_host(&mut self.m, [n]),
            ViewMut::from_host(&mut self.v, [n]),
            View::from_host(grads, [n]),
            hyper,
        )
    }
}

/// Algorithm 2 of the paper with bias-corrected moments, in f64.
fn oracle(state: &mut State<f64>, grads: &[f64], hyper: &Hyper) {
    for (i, grad) in grads.iter().enumerate() {
        let g = grad * hyper.grad_scale;
        let (m, v) = (&mut state.m[i], &mut state.v[i]);
        *m = hyper.beta1 * *m + (1.0 - hyper.beta1) * g;
        *v = hyper.beta2 * *v + (1.0 - hyper.beta2) * g * g;
        let m_hat = *m / (1.0 - hyper.beta1.powi(hyper.step as i32));
        let v_hat = *v / (1.0 - hyper.beta2.powi(hyper.step as i32));
        let weight = state.weights[i];
        state.weights[i] = weight
            - hyper.learning_rate
                * (m_hat / (v_hat.sqrt() + hyper.epsilon) + hyper.weight_decay * weight);
    }
}

fn check<T: Real>(n: usize) {
    let no_decay = Hyper { weight_decay: 0.0, grad_scale: 1.0, beta2: 0.999, ..HYPER };
    let strong = Hyper { learning_rate: 0.3, weight_decay: 0.5, epsilon: 1e-2, ..HYPER };
    let no_momentum = Hyper { beta1: 0.0, beta2: 0.0, ..HYPER };
    for hyper in [HYPER, no_decay, strong, no_momentum] {
        let mut state = State::new(&normal::<T>(n, 1.0, 1));
        let mut want = State::new(&to_f64(&state.weights));
        for step in 1..=6 {
            let hyper = Hyper { step, ..hyper };
            let grads = normal::<T>(n, 0.1, 10 + step);
            state.step(&grads, &hyper).unwrap();
            oracle(&mut want, &to_f64(&grads), &hyper);
        }
        // Per step the weight rounds three times and its update, below 1, about ten times; the
        // moments round four times, and the constants of f32 once: six steps of random sign,
        // twice for the worst of many elements. 1 - beta and beta themselves are rounded in T.
        let tolerance = 40.0 * T::UNIT_ROUNDOFF;
        let what = |name| format!("{name}, n={n}, {hyper:?}");
        assert_close(&what("m"), &to_f64(&state.m), &want.m, tolerance);
        assert_close(&what("v"), &to_f64(&state.v), &want.v, tolerance);
        assert_close(&what("weights"), &to_f64(&state.weights), &want.weights, tolerance);
    }
}

#[test]
fn several_steps_match_the_textbook_at_edge_sizes() {
    // The last one is past a boundary between chunks.
    for n in EDGE_SIZES.into_iter().chain([16_385]) {
        check::<f32>(n);
        check::<f64>(n);
    }
}

#[test]
fn three_steps_equal_those_of_torch() {
    // torch 2.15, float64: AdamW(lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1).
    let grads = [[0.1, -0.2, 3.0, 0.0], [0.4, 0.1, -1.0, 1e-6], [-0.3, 0.0, 2.0, -5e-7]];
    let want = [
        [0.989_000_001_999_999_6, -1.988_000_000_999_999_9, 0.489_500_000_066_666_66, 0.002_997],
        [
            0.979_263_684_222_125_3,
            -1.983_328_306_860_266_7,
            0.484_967_433_084_737_3,
            -0.004_155_910_797_903_911,
        ],
        [
            0.976_530_523_352_414_9,
            -1.979_243_652_031_169_4,
            0.478_397_769_278_867_73,
            -0.006_359_370_727_147_51,
        ],
    ];
    let mut state = State::new(&[1.0, -2.0, 0.5, 3e-3]);
    for (i, (grads, want)) in grads.iter().zip(want).enumerate() {
        state.step(grads, &Hyper { step: i as u64 + 1, ..HYPER }).unwrap();
        for (got, want) in state.weights.iter().zip(want) {
            // A few roundings of numbers of order one.
            assert!((got - want).abs() < 1e-15, "step {}: got {got:?}, want {want:?}", i + 1);
        }
    }
    let m = [0.00705, -0.0036, 0.1765, 2e-8];
    let v = [0.003_137_812_5, 0.00057, 0.163_406_25, 1.5e-14];
    assert_close("m", &state.m, &m, 1e-15);
    assert_close("v", &state.v, &v, 1e-15);
}

#[test]
fn without_gradient_only_decay_moves_the_weights() {
    let mut state = State::new(&[1.0f64, -4.0]);
    for step in 1..=3 {
        state.step(&[0.0, 0.0], &Hyper { step, ..HYPER }).unwrap();
    }
    // (1 - 0.01 * 0.1)^3
    assert_close("weights", &state.weights, &[0.997_002_999, -3.988_011_996], 1e-15);
    assert_eq!((state.m, state.v), (vec![0.0; 2], vec![0.0; 2]));
}

#[test]
fn late_steps_have_no_bias_left() {
    // 1 - beta^t is 1 to the last bit, also where t is beyond i32 and f64 integers.
    let state = State { weights: vec![1.0f64], m: vec![0.2], v: vec![0.04] };
    let mut late = state.clone();
    late.step(&[0.2], &Hyper { step: u64::MAX, grad_scale: 1.0, epsilon: 0.0, ..HYPER }).unwrap();
    // m and sqrt(v) stay 0.2: the update is the learning rate.
    assert_close("weights", &late.weights, &[1.0 - 0.001 - 0.01], 1e-15);
}

#[test]
fn a_nan_gradient_stays_with_its_parameter() {
    let mut state = State::new(&[1.0f32; 3]);
    state.step(&[0.1, f32::NAN, 0.1], &HYPER).unwrap();
    assert!(state.weights[1].is_nan());
    assert!(state.weights[0].is_finite() && state.weights[0] == state.weights[2]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let n = 50_000;
    assert_same_bits_for_any_thread_count("adamw", || {
        let mut state = State::new(&normal::<f32>(n, 1.0, 1));
        state.step(&normal(n, 1.0, 2), &HYPER).unwrap();
        [state.weights, state.m, state.v].concat()
    });
}

#[test]
fn contract_violations_are_named_and_nothing_is_written() {
    let mut state = State::new(&[1.0f32; 2]);
    let mut refused = |hyper: Hyper| state.step(&[1.0, 1.0], &hyper).unwrap_err().to_string();
    assert_eq!(refused(Hyper { step: 0, ..HYPER }), "adamw.step: step has 0, expected 1 or more");
    let error = refused(Hyper { beta1: 1.0, ..HYPER });
    assert_eq!(error, "adamw.step: beta1 has 1, expected [0, 1)");
    let error = refused(Hyper { beta2: f64::NAN, ..HYPER });
    assert_eq!(error, "adamw.step: beta2 has NaN, expected [0, 1)");
    assert_eq!(state.weights, [1.0; 2]);

    let (mut weights, mut m, mut v) = ([1.0f32; 2], [0.0f32; 2], [0.0f32; 3]);
    let error = step(
        &Device::Cpu,
        ViewMut::from_host(&mut weights, [2]),
        ViewMut::from_host(&mut m, [2]),
        ViewMut::from_host(&mut v, [3]),
        View::from_host(&[1.0f32; 2], [2]),
        &HYPER,
    );
    assert_eq!(error.unwrap_err().to_string(), "adamw.step: v has shape [3], expected shape [2]");
    let error = step(
        &Device::Cpu,
        ViewMut::from_host(&mut weights, [2]),
        ViewMut::from_host(&mut m, [2]),
        ViewMut::from_host(&mut v[..2], [2]),
        View::from_host(&[1.0f64; 2], [2]),
        &HYPER,
    );
    assert_eq!(error.unwrap_err().to_string(), "adamw.step: grads has f64, expected f32");
}

#[test]
fn no_parameters_is_fine() {
    State::<f32>::new(&[]).step(&[], &HYPER).unwrap();
}

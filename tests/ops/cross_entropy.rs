//! cross_entropy: losses and gradients against f64, differences, and hostile logits.

use super::{EDGE_SIZES, assert_same_bits_for_any_thread_count};
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::error::Result;
use hooke::ops::cross_entropy::{IGNORE, forward, forward_backward};
use hooke::tensor::{View, ViewMut};
use hooke::testing::fill::{below, normal, to_f64};
use hooke::testing::gradcheck::assert_gradient;

fn run_forward<T: Real>(logits: &[T], targets: &[i32]) -> Result<Vec<T>> {
    let r = targets.len();
    let mut losses = vec![T::from_f64(f64::NAN); r];
    let shape = [r, logits.len().checked_div(r).unwrap_or(5)];
    let losses_view = ViewMut::from_host(&mut losses, [r]);
    let (logits, targets) = (View::from_host(logits, shape), View::from_host(targets, [r]));
    forward(&Device::Cpu, losses_view, logits, targets)?;
    Ok(losses)
}

/// Losses and gradient.
fn run<T: Real>(logits: &[T], targets: &[i32], scale: f64) -> Result<(Vec<T>, Vec<T>)> {
    let r = targets.len();
    let (mut losses, mut logits) = (vec![T::from_f64(f64::NAN); r], logits.to_vec());
    let shape = [r, logits.len().checked_div(r).unwrap_or(5)];
    let losses_view = ViewMut::from_host(&mut losses, [r]);
    let logits_view = ViewMut::from_host(&mut logits, shape);
    let targets = View::from_host(targets, [r]);
    forward_backward(&Device::Cpu, losses_view, logits_view, targets, scale)?;
    Ok((losses, logits))
}

fn oracle(logits: &[f64], targets: &[i32], scale: f64) -> (Vec<f64>, Vec<f64>) {
    let v = logits.len() / targets.len();
    let (mut losses, mut gradient) = (Vec::new(), Vec::new());
    for (row, &target) in logits.chunks(v).zip(targets) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
        let trained = target != IGNORE;
        losses.push(if trained { max + sum.ln() - row[target as usize] } else { 0.0 });
        for (id, x) in row.iter().enumerate() {
            let onehot = f64::from(u8::from(id as i32 == target));
            gradient.push(if trained { scale * ((x - max).exp() / sum - onehot) } else { 0.0 });
        }
    }
    (losses, gradient)
}

/// Ids below `v`, about a quarter of them ignored, the first one trained.
fn targets(r: usize, v: usize) -> Vec<i32> {
    let keep = below(r, 4, 8);
    let ids = below(r, v as u32, 9).into_iter().zip(keep).enumerate();
    ids.map(|(row, (id, keep))| if keep == 0 && row > 0 { IGNORE } else { id }).collect()
}

#[track_caller]
fn assert_within(what: &str, got: &[f64], want: &[f64], tolerance: impl Fn(f64) -> f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance(*w), "{what}[{i}]: got {g:e}, want {w:e}");
    }
}

fn check<T: Real>(r: usize, v: usize) {
    let (logits, targets, scale) = (normal::<T>(r * v, 3.0, 1), targets(r, v), 0.37);
    let (want_losses, want_gradient) = oracle(&to_f64(&logits), &targets, scale);
    let (losses, gradient) = run(&logits, &targets, scale).unwrap();
    let what = format!("R={r} V={v}");
    let u = T::UNIT_ROUNDOFF;
    // x - max rounds to within u |x - max|, at most 24 u here (logits within 4 sigma), its
    // exponential adds 4 u, the sum at most 68 additions in a lane and 6 between lanes, of
    // positive terms and of random sign: 16 u is generous. The loss is a logarithm of that.
    let relative = 44.0 * u + 1e-15;
    assert_within(&what, &to_f64(&losses), &want_losses, |w| relative * (1.0 + w.abs()));
    // A probability has the relative error of numerator and denominator and two roundings; the
    // target's subtracts 1 exactly in f64.
    let relative = 2.0 * relative;
    for (row, (got, want)) in gradient.chunks(v).zip(want_gradient.chunks(v)).enumerate() {
        assert_within(&what, &to_f64(got), want, |w| {
            relative * if w < 0.0 { scale } else { w } + f64::from(f32::MIN_POSITIVE)
        });
        // Softmax minus one-hot sums to zero.
        let sum: f64 = got.iter().map(|x| x.to_f64()).sum();
        assert!(sum.abs() <= relative * scale, "{what}: gradient row {row} sums to {sum:e}");
    }
    assert_eq!(run_forward(&logits, &targets).unwrap(), losses, "{what}: one loss, two passes");
}

#[test]
fn losses_and_gradients_match_f64_at_edge_sizes() {
    for (i, &r) in EDGE_SIZES.iter().enumerate() {
        for v in [EDGE_SIZES[5 - i], EDGE_SIZES[(i + 2) % 6]] {
            check::<f32>(r, v);
            check::<f64>(r, v);
        }
    }
    // Around the blocks of 2048 in which exponentials are summed, and a real vocabulary.
    for v in [2047, 2048, 2049, 4127, 49152] {
        check::<f32>(3, v);
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let logits = normal::<f64>(5 * 7, 1.5, 1);
    let targets = [3, IGNORE, 6, 0, 3];
    let (_, gradient) = run(&logits, &targets, 0.4).unwrap();
    assert_gradient("dlogits", &logits, &gradient, |logits| {
        0.4 * run_forward(logits, &targets).unwrap().iter().sum::<f64>()
    });
}

#[test]
fn huge_logits_neither_overflow_nor_lose_the_loss() {
    let logits = [1e4f32, 1e4 - 1.0, -1e4, 3e38, 0.0, -3e38];
    let (losses, gradient) = run(&logits, &[1, 0], 1.0).unwrap();
    // Row 0: ln(1 + e^-1) + 1. Row 1: all mass on the target.
    let e = (-1.0f64).exp();
    assert!((f64::from(losses[0]) - (e.ln_1p() + 1.0)).abs() < 4.0 * f64::from(f32::EPSILON));
    assert!((f64::from(gradient[0]) - 1.0 / (1.0 + e)).abs() < 4.0 * f64::from(f32::EPSILON));
    assert_eq!((gradient[2], losses[1]), (0.0, 0.0));
    assert_eq!(gradient[3..], [0.0; 3]);
    // A wrong answer by 2e4 nats is 2e4 nats.
    assert_eq!(run(&[1e4f32, -1e4], &[1], 1.0).unwrap(), (vec![2e4], vec![1.0, -1.0]));
}

#[test]
fn masked_logits_have_no_probability() {
    let inf = f32::INFINITY;
    let (losses, gradient) = run(&[-inf, 0.0, -inf, 0.0], &[3], 2.0).unwrap();
    assert_eq!(gradient, [0.0, 1.0, 0.0, -1.0]);
    assert!((losses[0] - std::f32::consts::LN_2).abs() <= f32::EPSILON);
    // A masked target is an infinite loss, seen by the trainer rather than hidden here.
    let (losses, gradient) = run(&[-inf, 0.0], &[0], 1.0).unwrap();
    assert_eq!((losses[0], gradient), (inf, vec![-1.0, 1.0]));
}

#[test]
fn nan_or_infinity_in_a_trained_row_shows_in_its_loss_alone() {
    for v in [7, 40] {
        for at in [0, v - 1] {
            for hostile in [f32::NAN, f32::INFINITY] {
                let mut logits = normal::<f32>(3 * v, 1.0, 1);
                let (clean, _) = run(&logits, &[1, 1, 1], 1.0).unwrap();
                logits[v + at] = hostile;
                let (losses, _) = run(&logits, &[1, 1, 1], 1.0).unwrap();
                assert!(losses[1].is_nan(), "{hostile} at {at} of {v}");
                assert_eq!((losses[0], losses[2]), (clean[0], clean[2]));
                assert!(run_forward(&logits, &[1, 1, 1]).unwrap()[1].is_nan());
            }
        }
    }
    assert!(run(&[f32::NEG_INFINITY; 5], &[1], 1.0).unwrap().0[0].is_nan(), "no mass at all");
}

#[test]
fn ignored_rows_are_zero_and_their_logits_are_not_read() {
    let (losses, gradient) = run(&[f32::NAN; 12], &[IGNORE; 3], 1.0).unwrap();
    assert_eq!((losses, gradient), (vec![0.0; 3], vec![0.0; 12]));
    assert_eq!(run_forward(&[f32::NAN; 12], &[IGNORE; 3]).unwrap(), [0.0; 3]);
}

#[test]
fn no_rows_and_no_vocabulary_are_fine() {
    assert_eq!(run::<f32>(&[], &[], 1.0).unwrap(), (vec![], vec![]));
    assert_eq!(run::<f32>(&[], &[IGNORE; 2], 1.0).unwrap(), (vec![0.0; 2], vec![]));
    assert_eq!(run_forward::<f64>(&[], &[IGNORE; 2]).unwrap(), [0.0; 2]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (logits, targets) = (normal::<f32>(17 * 5003, 3.0, 1), targets(17, 5003));
    assert_same_bits_for_any_thread_count("cross_entropy", || {
        let (losses, gradient) = run(&logits, &targets, 0.1).unwrap();
        [losses, gradient].concat()
    });
}

#[test]
fn a_target_outside_the_vocabulary_is_named_and_nothing_is_written() {
    for bad in [4, -2, i32::MIN, i32::MAX] {
        let want = format!(
            "cross_entropy.forward: targets has id {bad} in row 2, expected ids in 0..4 or -1"
        );
        let error = run_forward(&[0.0f32; 12], &[0, IGNORE, bad]).unwrap_err();
        assert_eq!(error.to_string(), want);
        let (mut losses, mut logits) = ([7.0f32; 3], [1.0f32; 12]);
        let losses_view = ViewMut::from_host(&mut losses, [3]);
        let logits_view = ViewMut::from_host(&mut logits, [3, 4]);
        let targets = [0, IGNORE, bad];
        let targets = View::from_host(&targets, [3]);
        let error = forward_backward(&Device::Cpu, losses_view, logits_view, targets, 1.0);
        assert_eq!(error.unwrap_err().to_string(), want.replace("forward", "forward_backward"));
        assert_eq!((losses, logits), ([7.0; 3], [1.0; 12]));
    }
    assert!(run_forward::<f32>(&[], &[0]).is_err(), "no vocabulary has no target");
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let logits = [0.0f32; 12];
    let logits = View::from_host(&logits, [3, 4]);
    let targets = View::from_host(&[0, 0, 0], [3]);
    let mut losses = [0.0f64; 3];
    let losses_view = ViewMut::from_host(&mut losses, [3]);
    let error = forward(&Device::Cpu, losses_view, logits, targets).unwrap_err();
    assert_eq!(error.to_string(), "cross_entropy.forward: losses has f64, expected f32");
    let mut losses = [0.0f32; 2];
    let losses_view = ViewMut::from_host(&mut losses, [2]);
    let error = forward(&Device::Cpu, losses_view, logits, targets).unwrap_err();
    let want = "cross_entropy.forward: losses has shape [2], expected shape [3]";
    assert_eq!(error.to_string(), want);
}

//! cross_entropy: losses and gradients against f64, and hostile logits and targets.

use super::{nans, outputs, upload, upload_as};
use half::bf16;
use hooke::dtype::DType;
use hooke::ops::cross_entropy::{IGNORE, forward, forward_backward};
use hooke::testing::fill::{below, normal};

const DTYPES: [DType; 2] = [DType::BF16, DType::F32];
const U32: f64 = 1.0 / (1u64 << 24) as f64;

fn rounded(x: f64, to: DType) -> f64 {
    match to {
        DType::BF16 => f64::from(bf16::from_f64(x)),
        _ => f64::from(x as f32),
    }
}

fn random(n: usize, scale: f64, dtype: DType) -> Vec<f64> {
    normal::<f64>(n, scale, 1).into_iter().map(|x| rounded(x, dtype)).collect()
}

/// Losses and gradient of the kernels; checks that the forward pass alone has the same losses.
fn run(logits: &[f64], targets: &[i32], scale: f64, dtype: DType) -> (Vec<f64>, Vec<f64>) {
    let r = targets.len();
    let shape = [r, logits.len() / r];
    let mut got = outputs(|device| {
        let mut logits = upload_as(device, shape, logits, dtype);
        let targets = upload(device, [r], targets);
        let (mut alone, mut losses) =
            (nans(device, [r], DType::F32), nans(device, [r], DType::F32));
        forward(device, alone.view_mut(), logits.view(), targets.view()).unwrap();
        let out = (losses.view_mut(), logits.view_mut());
        forward_backward(device, out.0, out.1, targets.view(), scale).unwrap();
        vec![losses, logits, alone]
    });
    let same = got[0].iter().zip(&got[2]).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same, "the two passes disagree about the losses");
    got.truncate(2);
    let gradient = got.remove(1);
    (got.remove(0), gradient)
}

/// Compares with f64, element by element.
#[track_caller]
fn check(what: &str, logits: &[f64], targets: &[i32], scale: f64, dtype: DType) {
    let v = logits.len() / targets.len();
    let (losses, gradient) = run(logits, targets, scale, dtype);
    let what = format!("{what}, {dtype}, V={v}");
    for (r, &target) in targets.iter().enumerate() {
        let (row, got) = (&logits[r * v..][..v], &gradient[r * v..][..v]);
        if target == IGNORE {
            assert!(losses[r] == 0.0 && got.iter().all(|&g| g == 0.0), "{what}: ignored row {r}");
            continue;
        }
        let target = target as usize;
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exp: Vec<f64> = row.iter().map(|x| (x - max).exp()).collect();
        let others: f64 =
            exp.iter().enumerate().filter(|(i, _)| *i != target).map(|(_, e)| e).sum();
        let total = others + exp[target];
        let loss = if exp[target] == 1.0 { others.ln_1p() } else { total.ln() + max - row[target] };
        // The sum: each term is off by the rounding of x - max and of its product with log2(e),
        // u |x - max| each, at most 32 u where the term matters; 4 u for 2^x and its rescaling; and
        // the additions, 16 u for random signs in lanes of at most 72 terms.
        let relative = 52.0 * U32;
        let allowed = relative * loss.abs() + U32 * (max - row[target]);
        assert!((losses[r] - loss).abs() <= allowed, "{what} loss {r}: {} {loss}", losses[r]);
        // Half the spacing of the result, and at the lower end what the GPU flushes to zero.
        let spacing = if dtype == DType::BF16 { 2f64.powi(-8) } else { U32 };
        for (i, &g) in got.iter().enumerate() {
            let (numerator, argument) = match i == target {
                true => (-others, 0.0),
                false => (exp[i], max - row[i]),
            };
            let want = scale * numerator / total;
            let allowed = want.abs() * (2.0 * relative + 2.0 * U32 * argument + spacing) + 3e-38;
            assert!((g - want).abs() <= allowed, "{what} gradient {r},{i}: {g:e} {want:e}");
        }
    }
}

#[test]
fn losses_and_gradients_match_f64_at_edge_sizes() {
    // Odd widths move every row to another alignment; 8200 needs the large block.
    for (r, v) in [(3, 1), (3, 2), (9, 7), (9, 65), (9, 127), (9, 341), (2, 1024), (2, 8201)] {
        for dtype in DTYPES {
            let keep = below(r, 4, 8);
            let ids = below(r, v as u32, 9).into_iter().zip(keep).enumerate();
            let targets: Vec<i32> = ids
                .map(|(row, (id, keep))| if keep == 0 && row > 0 { IGNORE } else { id })
                .collect();
            check("random", &random(r * v, 3.0, dtype), &targets, 0.37, dtype);
        }
    }
}

#[test]
fn the_largest_logit_is_found_in_every_column() {
    // Row c has it in column c, and the target elsewhere or there.
    let v = 150;
    for dtype in DTYPES {
        let mut logits = vec![0.0; v * v];
        (0..v).for_each(|c| logits[c * v + c] = 64.0);
        let targets: Vec<i32> = (0..v).map(|c| [c, 0, v - 1, v / 2][c % 4] as i32).collect();
        check("spike", &logits, &targets, 1.0, dtype);
    }
}

#[test]
fn the_target_is_found_in_every_column() {
    let v = 83;
    for dtype in DTYPES {
        let row = random(v, 2.0, dtype);
        let targets: Vec<i32> = (0..v as i32).collect();
        check("every target", &row.repeat(v), &targets, 2.0, dtype);
    }
}

#[test]
fn shifted_and_widely_spread_logits_lose_nothing() {
    let (r, v) = (4, 65);
    let targets = [0, 31, 64, 7];
    for dtype in DTYPES {
        for shift in [-1e3, 1e3] {
            let shifted = random(r * v, 3.0, dtype)
                .iter()
                .map(|x| rounded(x + shift, dtype))
                .collect::<Vec<_>>();
            check("shifted", &shifted, &targets, 1.0, dtype);
        }
        check("spread", &random(r * v, 900.0, dtype), &targets, 1.0, dtype);
    }
}

#[test]
fn a_confident_row_keeps_its_small_loss_and_gradient() {
    // The target leads by 10 to 80: 1 - p is far below the spacing of numbers near 1.
    let v = 37;
    for dtype in DTYPES {
        for lead in [10.0, 20.0, 40.0, 80.0] {
            let mut logits = vec![0.0; 2 * v];
            (logits[5], logits[v + 36]) = (lead, lead);
            check("confident", &logits, &[5, 36], 1.0, dtype);
        }
    }
}

#[test]
fn logits_of_minus_infinity_are_impossible_tokens() {
    let v = 40;
    for dtype in DTYPES {
        let mut logits = random(2 * v, 1.0, dtype);
        // All but the target in the first row, a stretch of whole vectors in the second.
        (0..v).filter(|&i| i != 3).for_each(|i| logits[i] = f64::NEG_INFINITY);
        logits[v + 8..2 * v].fill(f64::NEG_INFINITY);
        let (losses, gradient) = run(&logits, &[3, 1], 1.0, dtype);
        assert!(losses[0] == 0.0 && gradient[..v].iter().all(|&g| g == 0.0));
        assert!(losses[1].is_finite() && losses[1] > 0.0);
        assert!(gradient[v + 8..].iter().all(|&g| g == 0.0));
        let sum: f64 = gradient[v..].iter().sum();
        assert!(sum.abs() < 1e-2, "probabilities sum to 1: {sum}");
        // An impossible target costs infinitely much.
        let (losses, _) = run(&logits, &[3, v as i32 - 1], 1.0, dtype);
        assert_eq!(losses, [0.0, f64::INFINITY]);
    }
}

#[test]
fn a_nan_shows_in_the_loss_and_ignored_rows_are_not_read() {
    let v = 150;
    for dtype in DTYPES {
        // In the scalar head, a vector, the scalar tail, and next to nothing but -inf.
        for at in [0, 20, v - 1] {
            let mut logits = random(3 * v, 1.0, dtype);
            logits[v + at] = f64::NAN;
            logits[2 * v..].fill(f64::NAN);
            let (losses, gradient) = run(&logits, &[0, 77, IGNORE], 1.0, dtype);
            assert!(losses[0].is_finite() && losses[1].is_nan() && losses[2] == 0.0, "{losses:?}");
            assert!(gradient[..v].iter().all(|g| g.is_finite()));
            assert!(gradient[2 * v..].iter().all(|&g| g == 0.0));
        }
        let mut logits = vec![f64::NEG_INFINITY; v];
        (logits[0], logits[40]) = (1.0, f64::NAN);
        assert!(run(&logits, &[0], 1.0, dtype).0[0].is_nan());
        assert!(run(&vec![f64::NEG_INFINITY; v], &[0], 1.0, dtype).0[0].is_nan());
    }
}

#[test]
fn a_wrong_target_poisons_its_own_row_and_no_other() {
    for v in [41, 64] {
        for dtype in DTYPES {
            let logits = random(6 * v, 1.0, dtype);
            let targets = [3, v as i32, -2, i32::MIN, i32::MAX, v as i32 - 1];
            let (losses, gradient) = run(&logits, &targets, 1.0, dtype);
            for (r, (loss, row)) in losses.iter().zip(gradient.chunks(v)).enumerate() {
                let wrong = (1..5).contains(&r);
                assert_eq!(loss.is_nan(), wrong, "row {r}");
                assert!(row.iter().all(|g| g.is_nan() == wrong), "row {r}");
            }
        }
    }
}

#[test]
fn a_scale_of_zero_and_no_rows_are_fine() {
    for dtype in DTYPES {
        let (losses, gradient) = run(&random(2 * 33, 1.0, dtype), &[0, 1], 0.0, dtype);
        assert!(losses.iter().all(|&loss| loss > 0.0) && gradient.iter().all(|&g| g == 0.0));
        for shape in [[0, 5], [0, 0]] {
            outputs(|device| {
                let mut logits = nans(device, shape, dtype);
                let mut losses = nans(device, [0], DType::F32);
                let targets = upload::<i32>(device, [0], &[]);
                forward(device, losses.view_mut(), logits.view(), targets.view()).unwrap();
                let out = (losses.view_mut(), logits.view_mut());
                forward_backward(device, out.0, out.1, targets.view(), 1.0).unwrap();
                vec![losses]
            });
        }
    }
}

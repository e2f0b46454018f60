//! embedding: rows gathered, gradients scattered in order, duplicates being the normal case.

use super::{EDGE_SIZES, assert_same_bits_for_any_thread_count};
use hooke::device::Device;
use hooke::dtype::Real;
use hooke::error::Result;
use hooke::ops::embedding::{backward, forward};
use hooke::tensor::{View, ViewMut};
use hooke::testing::fill::{below, normal};
use hooke::testing::gradcheck::{assert_gradient, weighted_sum};

fn run_forward<T: Real>(tokens: &[i32], weight: &[T], [v, c]: [usize; 2]) -> Result<Vec<T>> {
    let t = tokens.len();
    let mut out = vec![T::from_f64(f64::NAN); t * c];
    let out_view = ViewMut::from_host(&mut out, [t, c]);
    let (tokens, weight) = (View::from_host(tokens, [t]), View::from_host(weight, [v, c]));
    forward(&Device::Cpu, out_view, tokens, weight)?;
    Ok(out)
}

fn run_backward<T: Real>(dweight: &mut [T], dout: &[T], tokens: &[i32], [v, c]: [usize; 2]) {
    let t = tokens.len();
    let dweight = ViewMut::from_host(dweight, [v, c]);
    let (dout, tokens) = (View::from_host(dout, [t, c]), View::from_host(tokens, [t]));
    backward(&Device::Cpu, dweight, dout, tokens).unwrap();
}

/// Token lists in which every token differs, some repeat, two alternate, or one fills the list.
fn token_lists(t: usize, v: usize) -> Vec<Vec<i32>> {
    let drawn = below(t, v as u32, 3);
    let skewed = drawn.iter().map(|&id| id * (id % 3) / 2).collect();
    let two = drawn.iter().map(|&id| if id % 2 == 0 { 0 } else { v as i32 - 1 }).collect();
    let distinct = (0..t).map(|i| (i * 7 % v) as i32).collect();
    vec![drawn, skewed, two, vec![v as i32 / 2; t], distinct]
}

fn check<T: Real>(t: usize, v: usize, c: usize) {
    let weight = normal::<T>(v * c, 1.0, 1);
    let dout = normal::<T>(t * c, 1.0, 2);
    for tokens in token_lists(t, v) {
        let out = run_forward(&tokens, &weight, [v, c]).unwrap();
        for (i, &value) in out.iter().enumerate() {
            assert_eq!(value, weight[tokens[i / c] as usize * c + i % c], "T={t} V={v} C={c} {i}");
        }
        // The promised order is that of the positions, so a plain loop has the same bits.
        let mut want = weight.clone();
        for (i, &gradient) in dout.iter().enumerate() {
            want[tokens[i / c] as usize * c + i % c] += gradient;
        }
        let mut dweight = weight.clone();
        run_backward(&mut dweight, &dout, &tokens, [v, c]);
        assert_eq!(dweight, want, "T={t} V={v} C={c}");
    }
}

#[test]
fn gathers_rows_and_adds_gradients_in_position_order() {
    for (i, &t) in EDGE_SIZES.iter().enumerate() {
        let (v, c) = (EDGE_SIZES[(i + 2) % 6], EDGE_SIZES[(i + 3) % 6]);
        check::<f32>(t, v, c);
        check::<f64>(t, v, c);
    }
    // Large enough to be cut into several tasks, with runs of equal tokens across the cuts.
    check::<f32>(1024, 31, 130);
    check::<f32>(1500, 4000, 65);
}

#[test]
fn rows_of_absent_tokens_are_not_touched() {
    let (v, c, tokens) = (9, 3, [4, 4, 7]);
    let mut dweight = vec![f32::NAN; v * c];
    dweight[4 * c..5 * c].fill(0.0);
    dweight[7 * c..8 * c].fill(1.0);
    run_backward(&mut dweight, &[1.0; 9], &tokens, [v, c]);
    for (row, values) in dweight.chunks(c).enumerate() {
        match row {
            4 | 7 => assert_eq!(values, [2.0; 3]),
            _ => assert!(values.iter().all(|x| x.is_nan()), "row {row}"),
        }
    }
}

#[test]
fn backward_matches_finite_differences() {
    let (v, c, tokens) = (5, 3, [2, 0, 2, 2, 4]);
    let weight = normal::<f64>(v * c, 1.0, 1);
    let dout = normal::<f64>(tokens.len() * c, 1.0, 2);
    let mut dweight = vec![0.0; v * c];
    run_backward(&mut dweight, &dout, &tokens, [v, c]);
    assert_gradient("dweight", &weight, &dweight, |weight| {
        weighted_sum(&run_forward(&tokens, weight, [v, c]).unwrap(), &dout)
    });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (t, v, c) = (1024, 300, 576);
    for tokens in token_lists(t, v) {
        assert_same_bits_for_any_thread_count("embedding", || {
            let mut dweight = normal::<f32>(v * c, 1.0, 1);
            run_backward(&mut dweight, &normal(t * c, 1.0, 2), &tokens, [v, c]);
            let out = run_forward(&tokens, &dweight, [v, c]).unwrap();
            [out, dweight].concat()
        });
    }
}

#[test]
fn nothing_to_gather_is_fine() {
    assert_eq!(run_forward::<f32>(&[], &[1.0; 6], [2, 3]).unwrap(), [0.0f32; 0]);
    assert_eq!(run_forward::<f32>(&[0, 1], &[], [2, 0]).unwrap(), [0.0f32; 0]);
    assert_eq!(run_forward::<f32>(&[], &[], [0, 3]).unwrap(), [0.0f32; 0]);
    let mut dweight = [1.0f32; 6];
    run_backward(&mut dweight, &[], &[], [2, 3]);
    run_backward::<f32>(&mut [], &[], &[1, 1], [2, 0]);
    assert_eq!(dweight, [1.0; 6]);
}

#[test]
fn a_token_outside_the_vocabulary_is_named_and_nothing_is_written() {
    for bad in [-1, 2, i32::MIN, i32::MAX] {
        let error = run_forward(&[0, bad], &[1.0f32; 6], [2, 3]).unwrap_err();
        let want =
            format!("embedding.forward: tokens has id {bad} at position 1, expected ids in 0..2");
        assert_eq!(error.to_string(), want);
        let mut dweight = [1.0f32; 6];
        let error = backward(
            &Device::Cpu,
            ViewMut::from_host(&mut dweight, [2, 3]),
            View::from_host(&[5.0f32; 6], [2, 3]),
            View::from_host(&[0, bad], [2]),
        );
        assert_eq!(error.unwrap_err().to_string(), want.replace("forward", "backward"));
        assert_eq!(dweight, [1.0; 6]);
    }
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let weight = [0.0f32; 6];
    let mut out = [0.0f32; 8];
    let (weight, tokens) = (View::from_host(&weight, [2, 3]), View::from_host(&[0, 1], [2]));
    let error = forward(&Device::Cpu, ViewMut::from_host(&mut out, [2, 4]), tokens, weight);
    let want = "embedding.forward: out has shape [2, 4], expected shape [2, 3]";
    assert_eq!(error.unwrap_err().to_string(), want);
    let floats = View::from_host(&[0.0f32; 2], [2]);
    let error = forward(&Device::Cpu, ViewMut::from_host(&mut out[..6], [2, 3]), floats, weight);
    assert_eq!(error.unwrap_err().to_string(), "embedding.forward: tokens has f32, expected i32");
    let dweight = ViewMut::from_host(&mut out[..6], [2, 3]);
    let dout = View::from_host(&[0.0f64; 6], [2, 3]);
    let error = backward(&Device::Cpu, dweight, dout, tokens);
    assert_eq!(error.unwrap_err().to_string(), "embedding.backward: dout has f64, expected f32");
}

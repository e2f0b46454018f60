//! Operands that do not fit are named, before anything is written.

use super::heads;
use hooke::device::Device;
use hooke::error::Error;
use hooke::ops::{Heads, attention};
use hooke::tensor::{View, ViewMut};

/// Forward of 3 tokens with the given boundaries; the outputs must stay untouched on error.
fn run(cu_seqlens: &[i32], heads: Heads, width: usize) -> Result<(), Error> {
    let (mut out, mut lse) = ([7.0f32; 12], [7.0f32; 6]);
    let qkv = vec![0.5f32; 3 * width];
    let result = attention::forward(
        &Device::Cpu,
        ViewMut::from_host(&mut out, [3, 4]),
        ViewMut::from_host(&mut lse, [3, 2]),
        View::from_host(&qkv, [3, width]),
        View::from_host(cu_seqlens, [cu_seqlens.len()]),
        1.0,
        heads,
    );
    if result.is_err() {
        assert_eq!((out, lse), ([7.0; 12], [7.0; 6]));
    }
    result
}

#[test]
fn boundaries_that_do_not_describe_the_tokens_are_refused() {
    let good = heads(2, 1, 2);
    run(&[0, 1, 3], good, 8).unwrap();
    for (cu_seqlens, message) in [
        (&[][..], "nothing, expected 0 at its start"),
        (&[0], "0, expected 3 tokens at its end"),
        (&[1, 3], "1, expected 0 at its start"),
        (&[0, 2], "2, expected 3 tokens at its end"),
        (&[0, 4], "4, expected 3 tokens at its end"),
        (&[0, i32::MAX], "2147483647, expected 3 tokens at its end"),
        (&[0, 2, 2, 3], "2 then 2 at index 1, expected increasing values"),
        (&[0, 2, 1, 3], "2 then 1 at index 1, expected increasing values"),
        (&[0, 5, 3], "5 then 3 at index 1, expected increasing values"),
        (&[0, -1, 3], "-1 at index 1, expected no negative value"),
        (&[0, 3, i32::MIN], "-2147483648 at index 2, expected no negative value"),
    ] {
        let error = run(cu_seqlens, good, 8).unwrap_err();
        assert_eq!(error.to_string(), format!("attention.forward: cu_seqlens has {message}"));
    }
}

#[test]
fn impossible_heads_are_refused() {
    for bad in [
        heads(0, 1, 2),
        heads(2, 0, 2),
        heads(2, 1, 0),
        heads(3, 2, 2),
        heads(2, 2, usize::MAX / 2),
        heads(usize::MAX, 1, 2),
        heads(usize::MAX, usize::MAX, 2),
    ] {
        let error = run(&[0, 3], bad, 8).unwrap_err().to_string();
        assert!(error.starts_with("attention.forward: heads has Heads"), "{error}");
    }
    let error = run(&[0, 3], heads(2, 1, 3), 8).unwrap_err();
    assert_eq!(
        error.to_string(),
        "attention.forward: qkv has shape [3, 8], expected shape [3, 12]"
    );
}

/// Backward of one token, H = 2, G = 1, D = 2, with one operand replaced by a wrong shape.
fn backward_with(wrong: &str) -> String {
    let heads = heads(2, 1, 2);
    let shape = |name: &str, right: [usize; 2]| {
        if name == wrong { [right[0], right[1] + 1] } else { right }
    };
    let data = [0.5f32; 9];
    let view = |name: &str, right: [usize; 2]| {
        let shape = shape(name, right);
        View::from_host(&data[..shape[0] * shape[1]], shape)
    };
    let mut dqkv = [0.0f32; 9];
    let dqkv_shape = shape("dqkv", [1, 8]);
    let error = attention::backward(
        &Device::Cpu,
        ViewMut::from_host(&mut dqkv[..dqkv_shape[1]], dqkv_shape),
        view("dout", [1, 4]),
        view("qkv", [1, 8]),
        view("out", [1, 4]),
        view("lse", [1, 2]),
        View::from_host(&[0, 1], [2]),
        1.0,
        heads,
    );
    error.unwrap_err().to_string()
}

#[test]
fn every_operand_of_the_backward_pass_is_checked() {
    for name in ["dqkv", "dout", "qkv", "out", "lse"] {
        let message = backward_with(name);
        assert!(message.starts_with(&format!("attention.backward: {name} has shape")), "{message}");
    }
}

#[test]
fn types_that_do_not_fit_are_refused() {
    let heads = heads(2, 1, 2);
    let (mut out, mut lse) = ([0.0f32; 4], [0.0f32; 2]);
    let qkv = [0.5f64; 8];
    let error = attention::forward(
        &Device::Cpu,
        ViewMut::from_host(&mut out, [1, 4]),
        ViewMut::from_host(&mut lse, [1, 2]),
        View::from_host(&qkv, [1, 8]),
        View::from_host(&[0, 1], [2]),
        1.0,
        heads,
    );
    let message = "attention.forward: out has f32, expected f64";
    assert_eq!(error.unwrap_err().to_string(), message);
    let half = [half::bf16::ONE; 8];
    let mut half_out = [half::bf16::ONE; 4];
    let error = attention::forward(
        &Device::Cpu,
        ViewMut::from_host(&mut half_out, [1, 4]),
        ViewMut::from_host(&mut lse, [1, 2]),
        View::from_host(&half, [1, 8]),
        View::from_host(&[0, 1], [2]),
        1.0,
        heads,
    );
    let message = "attention.forward: element type has bf16, expected f32 or f64 on the CPU";
    assert_eq!(error.unwrap_err().to_string(), message);
}

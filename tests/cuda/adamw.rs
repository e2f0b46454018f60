//! adamw on the CUDA backend: the bits of the CPU reference, in every kind of state.

use super::rounded::{assert_rounded, to_vec, values};
use super::{bits, device, outputs, upload, upload_as};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::adamw::{self, CodesMut, Hyper, Rounding};
use hooke::tensor::Tensor;
use hooke::testing::fill::normal;

const HYPER: Hyper = Hyper {
    learning_rate: 0.01,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    grad_scale: 0.37,
    step: 1,
};
const ROUNDING: Rounding = Rounding { seed: 0xfeed_5eed_0000_0007, first_element: 24 };

/// One, less than a vector, tails, whole blocks of moments, more than one block of threads (2048).
const SIZES: [usize; 6] = [1, 7, 256, 341, 777, 2304];

/// The gradient of a step: most of them ordinary, some zero, tiny and large.
fn grads(n: usize, step: u64) -> Vec<f64> {
    let mut grads = values(n, 0.1, 10 + step);
    for (i, grad) in grads.iter_mut().enumerate() {
        match i % 16 {
            3 => *grad = 0.0,
            5 => *grad *= 2f64.powi(-30),
            11 => *grad *= 2f64.powi(12),
            _ => (),
        }
    }
    grads
}

/// Three steps on `device` from zero moments; all of the state afterwards.
type Steps = fn(&Device, n: usize, grads: DType) -> Vec<Tensor>;

fn each_step(n: usize, mut step: impl FnMut(&Hyper, &[f64])) {
    for number in 1..=3 {
        step(&Hyper { step: number, ..HYPER }, &grads(n, number));
    }
}

fn plain(device: &Device, n: usize, _: DType) -> Vec<Tensor> {
    let mut weights = upload(device, [n], &normal::<f32>(n, 1.0, 1));
    let [mut m, mut v] = [(); 2].map(|()| upload_as(device, [n], &vec![0.0; n], DType::F32));
    each_step(n, |hyper, grads| {
        let grads = upload_as(device, [n], grads, DType::F32);
        let (w, m, v) = (weights.view_mut(), m.view_mut(), v.view_mut());
        adamw::step(device, w, m, v, grads.view(), hyper).unwrap();
    });
    vec![weights, m, v]
}

fn master(device: &Device, n: usize, grads_dtype: DType) -> Vec<Tensor> {
    let mut master = upload(device, [n], &normal::<f32>(n, 1.0, 1));
    let mut weights = super::nans(device, [n], DType::BF16);
    let [mut m, mut v] = [(); 2].map(|()| upload_as(device, [n], &vec![0.0; n], DType::F32));
    each_step(n, |hyper, grads| {
        let grads = upload_as(device, [n], grads, grads_dtype);
        adamw::step_master(
            device,
            weights.view_mut(),
            master.view_mut(),
            m.view_mut(),
            v.view_mut(),
            grads.view(),
            hyper,
        )
        .unwrap();
    });
    vec![weights, master, m, v]
}

fn rounded(device: &Device, n: usize, grads_dtype: DType) -> Vec<Tensor> {
    let [mut weights, mut m, mut v] = [values(n, 1.0, 1), vec![0.0; n], vec![0.0; n]]
        .map(|values| upload_as(device, [n], &values, DType::BF16));
    each_step(n, |hyper, grads| {
        let grads = upload_as(device, [n], grads, grads_dtype);
        let (w, m, v) = (weights.view_mut(), m.view_mut(), v.view_mut());
        adamw::step_rounded(device, w, m, v, grads.view(), hyper, ROUNDING).unwrap();
    });
    vec![weights, m, v]
}

fn blockwise(device: &Device, n: usize, weights: DType, grads_dtype: DType) -> Vec<Tensor> {
    let mut weights = upload_as(device, [n], &values(n, 1.0, 1), weights);
    let [mut m, mut v] = [(); 2].map(|()| upload(device, [n], &vec![0u8; n]));
    let num_blocks = n.div_ceil(256);
    let [mut m_scales, mut v_scales] =
        [(); 2].map(|()| upload(device, [num_blocks], &vec![0f32; num_blocks]));
    each_step(n, |hyper, grads| {
        let grads = upload_as(device, [n], grads, grads_dtype);
        adamw::step_blockwise(
            device,
            weights.view_mut(),
            CodesMut { codes: m.view_mut(), scales: m_scales.view_mut() },
            CodesMut { codes: v.view_mut(), scales: v_scales.view_mut() },
            grads.view(),
            hyper,
            ROUNDING,
        )
        .unwrap();
    });
    vec![weights, m, m_scales, v, v_scales]
}

fn blockwise_bf16(device: &Device, n: usize, grads: DType) -> Vec<Tensor> {
    blockwise(device, n, DType::BF16, grads)
}

fn blockwise_f32(device: &Device, n: usize, grads: DType) -> Vec<Tensor> {
    blockwise(device, n, DType::F32, grads)
}

#[test]
fn smaller_states_have_the_bits_of_the_reference() {
    let cases: [(&str, Steps, DType); 7] = [
        ("master", master, DType::F32),
        ("master", master, DType::BF16),
        ("rounded", rounded, DType::F32),
        ("rounded", rounded, DType::BF16),
        ("blockwise bf16", blockwise_bf16, DType::F32),
        ("blockwise bf16", blockwise_bf16, DType::BF16),
        ("blockwise f32", blockwise_f32, DType::F32),
    ];
    for (what, steps, grads) in cases {
        for n in SIZES {
            let got = outputs(|device| steps(device, n, grads));
            let want = steps(&Device::Cpu, n, grads);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_eq!(got, &to_vec(want), "{what}, {grads} gradients, n={n}, tensor {i}");
            }
        }
    }
}

#[test]
fn f32_weights_step_as_the_master_weights_and_as_the_reference() {
    for n in SIZES {
        let got = outputs(|device| plain(device, n, DType::F32));
        let master = outputs(|device| master(device, n, DType::F32));
        assert_eq!(got[..], master[1..], "n={n}");
        let want = plain(&Device::Cpu, n, DType::F32);
        for (got, want) in got.iter().zip(&want) {
            // Three steps of about ten roundings, in both.
            assert_rounded(&format!("n={n}"), got, &to_vec(want), DType::F32, 60.0);
        }
    }
}

#[test]
fn ranges_that_begin_anywhere_have_the_same_bits() {
    let n = 300;
    let device = device();
    let whole = rounded(&device, n, DType::F32);
    for start in [1, 3, 8] {
        let place = |values: &[f64]| {
            let padded = [vec![5.0; start], values.to_vec(), vec![5.0; 9]].concat();
            upload_as(&device, [start + n + 9], &padded, DType::BF16)
        };
        let mut state = [values(n, 1.0, 1), vec![0.0; n], vec![0.0; n]].map(|v| place(&v));
        each_step(n, |hyper, grads| {
            let grads = upload_as(&device, [n], grads, DType::F32);
            let [w, m, v] = state.each_mut().map(|t| t.view_mut().slice_rows(start, n));
            adamw::step_rounded(&device, w, m, v, grads.view(), hyper, ROUNDING).unwrap();
        });
        for (state, whole) in state.iter().zip(&whole) {
            assert_eq!(bits(state.view().slice_rows(start, n)), bits(whole.view()), "{start}");
            let all = to_vec(state);
            assert!(all[..start].iter().chain(&all[start + n..]).all(|&x| x == 5.0), "{start}");
        }
    }
}

#[test]
fn a_nan_gradient_spoils_its_parameter_or_its_block_and_shows() {
    let (n, bad) = (600, 300);
    let device = device();
    let mut grads = values(n, 1.0, 2);
    grads[bad] = f64::NAN;
    let grads = upload_as(&device, [n], &grads, DType::F32);
    let mut weights = upload_as(&device, [n], &vec![1.0; n], DType::BF16);
    let [mut m, mut v] = [(); 2].map(|()| upload_as(&device, [n], &vec![0.0; n], DType::BF16));
    let (w, m, v) = (weights.view_mut(), m.view_mut(), v.view_mut());
    adamw::step_rounded(&device, w, m, v, grads.view(), &HYPER, ROUNDING).unwrap();
    assert!(to_vec(&weights).iter().enumerate().all(|(i, w)| w.is_nan() == (i == bad)));

    let mut weights = upload_as(&device, [n], &vec![1.0; n], DType::BF16);
    let [mut m, mut v] = [(); 2].map(|()| upload(&device, [n], &vec![0u8; n]));
    let [mut m_scales, mut v_scales] = [(); 2].map(|()| upload(&device, [3], &[0f32; 3]));
    for step in 1..=2 {
        adamw::step_blockwise(
            &device,
            weights.view_mut(),
            CodesMut { codes: m.view_mut(), scales: m_scales.view_mut() },
            CodesMut { codes: v.view_mut(), scales: v_scales.view_mut() },
            grads.view(),
            &Hyper { step, ..HYPER },
            ROUNDING,
        )
        .unwrap();
        for scales in [&m_scales, &v_scales] {
            assert!(to_vec(scales).iter().enumerate().all(|(i, s)| s.is_nan() == (i == 1)));
        }
    }
    // The second step reads the spoilt block.
    let spoilt = |i: usize| (256..512).contains(&i);
    assert!(to_vec(&weights).iter().enumerate().all(|(i, w)| w.is_nan() == spoilt(i)));
}

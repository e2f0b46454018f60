//! sample kernels: the very tokens that the CPU chooses.

use super::{outputs, upload, upload_as};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::ops::sample::{self, INVALID, Sampling};
use hooke::tensor::Tensor;
use hooke::testing::fill::{below, normal};

struct Case {
    logits: Vec<f64>,
    row_length: usize,
    num_tokens: usize,
    dtype: DType,
}

impl Case {
    fn num_rows(&self) -> usize {
        self.logits.len() / self.row_length
    }

    fn ids(&self, device: &Device, sampling: &Sampling, position: u32) -> Tensor {
        let rows = self.num_rows();
        // The CPU computes in f32 what it gets as bf16; the numbers are the same.
        let dtype = if matches!(device, Device::Cpu) { DType::F32 } else { self.dtype };
        let logits = upload_as(device, [rows, self.row_length], &self.logits, dtype);
        let mut ids = upload(device, [rows], &vec![-7i32; rows]);
        sample::sample(
            device,
            ids.view_mut(),
            logits.view(),
            self.num_tokens,
            sampling,
            5,
            position,
        )
        .unwrap();
        ids
    }

    #[track_caller]
    fn check(&self, sampling: Sampling, position: u32) -> Vec<f64> {
        let got = outputs(|device| vec![self.ids(device, &sampling, position)]).remove(0);
        let want = self.ids(&Device::Cpu, &sampling, position).view().to_f64_vec().unwrap();
        assert_eq!(got, want, "{:?} {sampling:?} position {position}", self.dtype);
        got
    }
}

fn settings(temperature: f64, top_p: f64, top_k: usize) -> Sampling {
    Sampling { temperature, top_p, top_k, seed: 0x1234_5678_9abc_def0 }
}

const SETTINGS: [(f64, f64, usize); 8] = [
    (0.0, 1.0, 0),
    (1.0, 1.0, 0),
    (0.7, 0.9, 0),
    (1.0, 0.95, 50),
    (1.5, 1.0, 5),
    (2.0, 1e-9, 0),
    (1.0, 1.0, 1),
    (30.0, 0.5, 10_000),
];

#[test]
fn tokens_are_those_of_the_cpu() {
    for (i, (temperature, top_p, top_k)) in SETTINGS.into_iter().enumerate() {
        let (row_length, num_tokens) = (700, 641);
        let logits: Vec<f64> = normal(3 * row_length, 3.0, i as u64);
        let dtype = if i % 2 == 0 { DType::BF16 } else { DType::F32 };
        let logits =
            logits.into_iter().map(|x| if i % 2 == 0 { super::attention::bf16(x) } else { x });
        let case = Case { logits: logits.collect(), row_length, num_tokens, dtype };
        case.check(settings(temperature, top_p, top_k), 17 + i as u32);
    }
}

#[test]
fn equals_are_taken_in_the_order_of_their_ids() {
    // Four values only, zeros of both signs among them: every limit and every draw falls on equals.
    let values = [-1.0, -0.0, 0.0, 0.5];
    for (i, (temperature, top_p, top_k)) in SETTINGS.into_iter().enumerate() {
        let logits = below(2 * 530, 4, i as u64).into_iter().map(|x| values[x as usize]).collect();
        let dtype = if i % 2 == 0 { DType::F32 } else { DType::BF16 };
        let case = Case { logits, row_length: 530, num_tokens: 530, dtype };
        case.check(settings(temperature, top_p, top_k), i as u32);
    }
}

#[test]
fn a_limit_that_falls_between_two_logits_cuts_there() {
    // 20 of 100 tokens are likelier; at this temperature the others are nearly as likely.
    let logits: Vec<f64> = (0..2 * 100).map(|i| if i % 5 == 2 { 1.0 } else { 0.5 }).collect();
    for dtype in [DType::F32, DType::BF16] {
        let case = Case { logits: logits.clone(), row_length: 100, num_tokens: 100, dtype };
        for position in 0..4 {
            let got = case.check(settings(100.0, 1.0, 20), position);
            assert!(got.iter().all(|id| id % 5.0 == 2.0), "{got:?}");
        }
    }
}

#[test]
fn the_likeliest_token_is_found_in_every_place() {
    let places = [0, 1, 31, 32, 511, 512, 599];
    let mut logits: Vec<f64> = vec![-2.0; 7 * 600];
    for (row, place) in places.into_iter().enumerate() {
        logits[row * 600 + place] = -1.5;
    }
    for dtype in [DType::F32, DType::BF16] {
        let case = Case { logits: logits.clone(), row_length: 600, num_tokens: 600, dtype };
        assert_eq!(case.check(settings(0.0, 1.0, 0), 0), places.map(|place| place as f64));
    }
}

#[test]
fn a_choice_does_not_depend_on_the_batch() {
    let logits: Vec<f64> = normal(2 * 100, 1.0, 3);
    let together =
        Case { logits: logits.clone(), row_length: 100, num_tokens: 100, dtype: DType::F32 };
    let alone = Case {
        logits: logits[..100].to_vec(),
        row_length: 100,
        num_tokens: 100,
        dtype: DType::F32,
    };
    for position in [0, 1, u32::MAX] {
        let sampling = settings(1.0, 1.0, 0);
        assert_eq!(alone.check(sampling, position), together.check(sampling, position)[..1]);
    }
}

#[test]
fn rows_without_a_distribution_are_invalid_and_impossible_tokens_never_chosen() {
    let none = f64::NEG_INFINITY;
    let mut logits = vec![0.25; 6 * 40];
    logits[39] = f64::NAN;
    logits[40 + 1] = f64::INFINITY;
    logits[2 * 40..3 * 40].fill(none);
    // A NaN of the other sign is not the smallest number.
    logits[3 * 40 + 7] = -f64::NAN;
    logits[4 * 40..].fill(none);
    logits[4 * 40 + 11] = -1e30;
    logits[5 * 40 + 12] = 1e30;
    for (dtype, temperature) in [(DType::F32, 1.0), (DType::BF16, 1.0), (DType::F32, 0.0)] {
        let case = Case { logits: logits.clone(), row_length: 40, num_tokens: 40, dtype };
        let got = case.check(settings(temperature, 0.9, 20), 0);
        let bad = f64::from(INVALID);
        assert_eq!(got, [bad, bad, bad, bad, 11.0, 12.0], "{dtype}");
    }
}

//! CPU reference of the smaller states: chunks of whole blocks in parallel.

use super::Hyper;
use super::codes::{BLOCK, M_MAX, V_MAX, block_scale, decode_m, decode_v, encode};
use super::element::{Element, Factors};
use super::rounding::{Rounding, Value, dither, round_stochastic};
use super::states::CodesMut;
use crate::dtype::DType;
use crate::ops::Operand;
use crate::ops::elementwise::nearest_bf16;
use crate::tensor::{View, ViewMut};
use half::bf16;
use rayon::prelude::*;

/// Elements per task: a multiple of [`BLOCK`].
const CHUNK: usize = 1 << 14;

/// Gradients of either type, by index.
#[derive(Clone, Copy)]
enum Grads<'a> {
    F32(&'a [f32]),
    BF16(&'a [bf16]),
}

impl<'a> Grads<'a> {
    /// The contract allows f32 and bf16.
    fn new(view: View<'a>) -> Self {
        match view.dtype() {
            DType::BF16 => Self::BF16(view.host()),
            _ => Self::F32(view.host()),
        }
    }

    fn get(self, i: usize) -> f32 {
        match self {
            Self::F32(values) => values[i],
            Self::BF16(values) => values[i].to_f32(),
        }
    }
}

/// Random bits of one range of parameters at one step.
#[derive(Clone, Copy)]
struct Dithers {
    seed: u64,
    first_group: u64,
    step: u32,
}

impl Dithers {
    fn new(rounding: Rounding, step: u32) -> Self {
        Self { seed: rounding.seed, first_group: rounding.first_element / 8, step }
    }

    /// Of the eight elements from `begin` on, a multiple of 8.
    fn eight(self, begin: usize, value: Value) -> [u32; 8] {
        dither(self.seed, self.step, self.first_group + begin as u64 / 8, value)
    }

    fn round(self, begin: usize, value: Value, out: &mut [bf16], values: &[f32]) {
        let dithers = self.eight(begin, value);
        for ((out, &x), dither) in out.iter_mut().zip(values).zip(dithers) {
            *out = round_stochastic(x, dither);
        }
    }
}

pub(super) fn step_master(
    weights: ViewMut<'_>,
    master: ViewMut<'_>,
    m: ViewMut<'_>,
    v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
) {
    let (factors, grads) = (Factors::new(hyper), Grads::new(grads));
    (weights.host::<bf16>().par_chunks_mut(CHUNK))
        .zip(master.host::<f32>().par_chunks_mut(CHUNK))
        .zip(m.host::<f32>().par_chunks_mut(CHUNK))
        .zip(v.host::<f32>().par_chunks_mut(CHUNK))
        .enumerate()
        .for_each(|(chunk, (((weights, master), m), v))| {
            for i in 0..weights.len() {
                let old = Element { weight: master[i], m: m[i], v: v[i] };
                let new = old.updated(grads.get(chunk * CHUNK + i), &factors);
                (master[i], m[i], v[i]) = (new.weight, new.m, new.v);
                weights[i] = nearest_bf16(new.weight);
            }
        });
}

pub(super) fn step_rounded(
    weights: ViewMut<'_>,
    m: ViewMut<'_>,
    v: ViewMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
    rounding: Rounding,
    step: u32,
) {
    let (factors, grads) = (Factors::new(hyper), Grads::new(grads));
    let dithers = Dithers::new(rounding, step);
    (weights.host::<bf16>().par_chunks_mut(8))
        .zip(m.host::<bf16>().par_chunks_mut(8))
        .zip(v.host::<bf16>().par_chunks_mut(8))
        .enumerate()
        .with_min_len(CHUNK / 8)
        .for_each(|(group, ((weights, m), v))| {
            let begin = group * 8;
            let mut new = [[0.0f32; 8]; 3];
            for i in 0..weights.len() {
                let weight = weights[i].to_f32();
                let old = Element { weight, m: m[i].to_f32(), v: v[i].to_f32() };
                let e = old.updated(grads.get(begin + i), &factors);
                (new[0][i], new[1][i], new[2][i]) = (e.weight, e.m, e.v);
            }
            dithers.round(begin, Value::Weight, weights, &new[0]);
            dithers.round(begin, Value::M, m, &new[1]);
            dithers.round(begin, Value::V, v, &new[2]);
        });
}

pub(super) fn step_blockwise(
    weights: ViewMut<'_>,
    m: CodesMut<'_>,
    v: CodesMut<'_>,
    grads: View<'_>,
    hyper: &Hyper,
    rounding: Rounding,
    step: u32,
) {
    let (factors, grads) = (Factors::new(hyper), Grads::new(grads));
    let dithers = Dithers::new(rounding, step);
    let moments = (m.codes.host::<u8>().par_chunks_mut(BLOCK))
        .zip(m.scales.host::<f32>())
        .zip(v.codes.host::<u8>().par_chunks_mut(BLOCK))
        .zip(v.scales.host::<f32>())
        .enumerate()
        .map(|(block, (((m, m_scale), v), v_scale))| {
            (block * BLOCK, Block { m, m_scale, v, v_scale })
        });
    match Operand::dtype(&weights) {
        DType::BF16 => {
            let weights = weights.host::<bf16>().par_chunks_mut(BLOCK);
            moments.zip(weights).with_min_len(CHUNK / BLOCK).for_each(
                |((begin, block), weights)| {
                    let mut values: Vec<f32> = weights.iter().map(|w| w.to_f32()).collect();
                    block.step(&mut values, begin, grads, &factors, dithers);
                    for (i, (out, values)) in
                        weights.chunks_mut(8).zip(values.chunks(8)).enumerate()
                    {
                        dithers.round(begin + i * 8, Value::Weight, out, values);
                    }
                },
            );
        }
        _ => {
            let weights = weights.host::<f32>().par_chunks_mut(BLOCK);
            moments.zip(weights).with_min_len(CHUNK / BLOCK).for_each(
                |((begin, block), weights)| {
                    block.step(weights, begin, grads, &factors, dithers);
                },
            );
        }
    }
}

/// The moments of up to 256 parameters.
struct Block<'a> {
    m: &'a mut [u8],
    m_scale: &'a mut f32,
    v: &'a mut [u8],
    v_scale: &'a mut f32,
}

impl Block<'_> {
    fn step(
        self,
        weights: &mut [f32],
        begin: usize,
        grads: Grads<'_>,
        factors: &Factors,
        dithers: Dithers,
    ) {
        let mut moments = [(0.0f32, 0.0f32); BLOCK];
        let (mut m_largest, mut v_largest) = (0.0f32, 0.0f32);
        for (i, weight) in weights.iter_mut().enumerate() {
            let m = *self.m_scale * decode_m(self.m[i]);
            let v = *self.v_scale * decode_v(self.v[i]);
            let old = Element { weight: *weight, m, v };
            let new = old.updated(grads.get(begin + i), factors);
            (*weight, moments[i]) = (new.weight, (new.m, new.v));
            m_largest = larger_or_nan(m_largest, new.m.abs());
            v_largest = larger_or_nan(v_largest, new.v.abs());
        }
        (*self.m_scale, *self.v_scale) = (block_scale(m_largest), block_scale(v_largest));
        let (m_inverse, v_inverse) = (1.0 / *self.m_scale, 1.0 / *self.v_scale);
        for group in (0..weights.len()).step_by(8) {
            let m_dithers = dithers.eight(begin + group, Value::M);
            let v_dithers = dithers.eight(begin + group, Value::V);
            for i in group..weights.len().min(group + 8) {
                let (m, v) = moments[i];
                let magnitude = encode::<M_MAX>(m.abs() * m_inverse, m_dithers[i - group]);
                let sign = if magnitude != 0 && m < 0.0 { 0x80 } else { 0 };
                self.m[i] = (magnitude | sign) as u8;
                let code = encode::<V_MAX>(v * v_inverse, v_dithers[i - group]);
                // Never 0 where there was a gradient: the update would be m / epsilon.
                let is_zero = v == 0.0 && m == 0.0;
                self.v[i] = if is_zero { 0 } else { code.max(1) as u8 };
            }
        }
    }
}

fn larger_or_nan(largest: f32, x: f32) -> f32 {
    if x > largest || x.is_nan() { x } else { largest }
}

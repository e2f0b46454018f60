//! Rotary position embedding: frequencies of each kind of scaling, and the tables of angles.

use super::config::{ModelConfig, RopeScaling};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Tensor;
use std::f64::consts::TAU;

/// cos and sin of every position and frequency, both of shape (P, D/2).
#[derive(Debug)]
pub struct RopeTables {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

impl RopeTables {
    /// Tabulates positions `0 .. max_positions`.
    ///
    /// Frequency and angle are rounded to f32 as in transformers, so that long contexts see the
    /// angles the model was trained with; the functions themselves are evaluated in f64.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        max_positions: usize,
        dtype: DType,
    ) -> Result<Self> {
        let frequencies = inverse_frequencies(config);
        let shape = [max_positions, frequencies.len()];
        let angles: Vec<f64> = (0..max_positions)
            .flat_map(|p| frequencies.iter().map(move |&f| f64::from(p as f32 * f)))
            .collect();
        let table = |what: &str, f: fn(f64) -> f64| -> Result<Tensor> {
            if dtype == DType::F64 {
                let values: Vec<f64> = angles.iter().map(|&a| f(a)).collect();
                Tensor::from_slice(device, what, shape, &values)
            } else {
                let values: Vec<f32> = angles.iter().map(|&a| f(a) as f32).collect();
                Tensor::from_slice(device, what, shape, &values)
            }
        };
        Ok(Self { cos: table("rope cosines", f64::cos)?, sin: table("rope sines", f64::sin)? })
    }

    /// Rows of the tables.
    pub fn max_positions(&self) -> usize {
        self.cos.shape().dims()[0]
    }
}

/// Angle per position of each pair, in radians: θ^(−2i/D) for i in 0 .. D/2, then scaled.
///
/// Source of the scalings: `modeling_rope_utils` of transformers; `llama3` is from the release
/// of Llama 3.1.
pub fn inverse_frequencies(config: &ModelConfig) -> Vec<f32> {
    let head_dim = config.heads.head_dim;
    let plain = (0..head_dim / 2)
        .map(|i| 1.0 / config.rope_theta.powf(2.0 * i as f64 / head_dim as f64))
        .map(|f| f64::from(f as f32));
    let scaled = plain.map(|frequency| match config.rope_scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let original = original_max_position_embeddings as f64;
            let wavelength = TAU / frequency;
            if wavelength < original / high_freq_factor {
                frequency
            } else if wavelength > original / low_freq_factor {
                frequency / factor
            } else {
                let kept = (original / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    });
    scaled.map(|f| f as f32).collect()
}

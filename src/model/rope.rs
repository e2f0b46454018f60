//! Rotary position embedding: frequencies of each kind of scaling, and the tables of angles.

use super::config::{ModelConfig, RopeScaling};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::Allocate;
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::f64::consts::TAU;

/// cos and sin of every position and frequency, both of shape (P, D/2).
#[derive(Debug)]
pub struct RopeTables<T = Tensor> {
    /// Cosines.
    pub cos: T,
    /// Sines.
    pub sin: T,
}

impl<T> RopeTables<T> {
    /// Room for positions `0 .. max_positions` of a model that computes in `dtype`.
    pub fn build(
        memory: &mut impl Allocate<Tensor = T>,
        config: &ModelConfig,
        max_positions: usize,
        dtype: DType,
    ) -> Result<Self> {
        let shape = Shape::from([max_positions, config.heads.head_dim / 2]);
        let dtype = dtype.accumulator();
        Ok(Self {
            cos: memory.zeros("rope cosines", shape, dtype)?,
            sin: memory.zeros("rope sines", shape, dtype)?,
        })
    }
}

impl RopeTables {
    /// Tabulates positions `0 .. max_positions`.
    ///
    /// Frequency and angle are rounded to f32 as in transformers, so that long contexts see the
    /// angles the model was trained with; the functions themselves are evaluated in f64.
    pub fn new(
        mut device: &Device,
        config: &ModelConfig,
        max_positions: usize,
        dtype: DType,
    ) -> Result<Self> {
        let mut tables = Self::build(&mut device, config, max_positions, dtype)?;
        let frequencies = inverse_frequencies(config);
        let angles: Vec<f64> = (0..max_positions)
            .flat_map(|p| frequencies.iter().map(move |&f| f64::from(p as f32 * f)))
            .collect();
        let fill = |table: &mut Tensor, f: fn(f64) -> f64| {
            if dtype == DType::F64 {
                let values: Vec<f64> = angles.iter().map(|&a| f(a)).collect();
                table.view_mut().copy_from_host(&values)
            } else {
                let values: Vec<f32> = angles.iter().map(|&a| f(a) as f32).collect();
                table.view_mut().copy_from_host(&values)
            }
        };
        fill(&mut tables.cos, f64::cos)?;
        fill(&mut tables.sin, f64::sin)?;
        Ok(tables)
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

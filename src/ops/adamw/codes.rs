//! Eight-bit codes of moments: blocks of 256 with a scale, each element a small floating-point number.
//!
//! Relative to the scale of its block, the smallest power of two that no magnitude exceeds, code c
//! stands for the f32 whose bits are (c + bias) · 2²⁰: an exponent and three bits of mantissa, so
//! neighbours are 6 to 12 % apart everywhere, and the largest code is 1.
//! ```text
//!            codes            smallest       largest
//! m   sign + 1 ..= 127        1.25 · 2⁻¹⁶    1
//! v          1 ..= 255        1.25 · 2⁻³²    1
//! ```
//! 0 is zero. The range of v is the square of that of m: where v is as small as it can be
//! represented, so is √v relative to m, and no update m / √v can explode because v was rounded away.
//! For the same reason v is never coded as 0 unless both moments are 0.
//!
//! Rounding is stochastic between neighbouring codes (and between 0 and the smallest): v shrinks by
//! a thousandth per step, which rounding to nearest would undo each time. A power of two as the scale
//! makes division by it exact, so what is rounded is exactly the moment.
//!
//! A NaN or infinity makes the scale NaN, and with it the whole block: nothing is hidden.
//!
//! The idea of blocks of 256 with a map that is finer near zero is of Dettmers et al., "8-bit
//! Optimizers via Block-wise Quantization" (ICLR 2022). Their map is a table of decades, found by
//! search; this one is arithmetic.

/// Elements that share a scale.
pub const BLOCK: usize = 256;

/// Code of the moment m: a sign and a magnitude.
pub(super) const M_MAX: u32 = 127;
/// Code of the moment v: a magnitude.
pub(super) const V_MAX: u32 = 255;

/// The value of a code of m relative to its block's scale.
pub fn decode_m(code: u8) -> f32 {
    let magnitude = decode::<M_MAX>(u32::from(code & 0x7f));
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The value of a code of v relative to its block's scale.
pub fn decode_v(code: u8) -> f32 {
    decode::<V_MAX>(u32::from(code))
}

/// The smallest power of two not below `largest`, between 2⁻¹⁰⁰ and 2¹²⁷; NaN unless that is finite.
pub(super) fn block_scale(largest: f32) -> f32 {
    if !largest.is_finite() {
        return f32::NAN;
    }
    // Carries into the exponent unless the mantissa is 0.
    let power = (largest.to_bits() + 0x7f_ffff) & 0x7f80_0000;
    f32::from_bits(power.clamp(27 << 23, 254 << 23))
}

const fn bias(max: u32) -> u32 {
    // The bits of 1.0, without the twenty that are cut off, less the largest code.
    (1.0f32.to_bits() >> 20) - max
}

fn decode<const MAX: u32>(code: u32) -> f32 {
    if code == 0 { 0.0 } else { f32::from_bits((code + bias(MAX)) << 20) }
}

/// The code of x ≥ 0, relative to the scale, for 16 random bits.
pub(super) fn encode<const MAX: u32>(x: f32, dither: u32) -> u32 {
    let smallest = (1 + bias(MAX)) << 20;
    if x.to_bits() < smallest {
        // 0 and the smallest code: a linear gap of its own.
        let parts = 65536.0 / f32::from_bits(smallest);
        return u32::from(x * parts > dither as f32 + 0.5);
    }
    // Sixteen of the twenty bits that are cut off; the rest is their middle.
    (((x.to_bits() + (dither << 4 | 8)) >> 20) - bias(MAX)).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rise_to_one_and_have_the_documented_ends() {
        for code in 1..=255u8 {
            assert!(decode_v(code) > decode_v(code - 1), "{code}");
            let gap = f64::from(decode_v(code)) / f64::from(decode_v(code.max(2) - 1));
            assert!(code == 1 || (1.0 + 1.0 / 16.0..=1.125).contains(&gap), "{code}: {gap}");
        }
        assert_eq!((decode_m(127), decode_m(255), decode_v(255)), (1.0, -1.0, 1.0));
        assert_eq!((decode_m(1), decode_m(129)), (1.25 / 65536.0, -1.25 / 65536.0));
        assert_eq!(f64::from(decode_v(1)), 1.25 / 4_294_967_296.0);
        assert_eq!((decode_m(0), decode_m(128), decode_v(0)), (0.0, 0.0, 0.0));
    }

    #[test]
    fn every_code_is_a_fixed_point_whatever_the_dither() {
        for dither in [0, 0x7fff, 0xffff] {
            for code in 0..=255 {
                assert_eq!(encode::<V_MAX>(decode::<V_MAX>(code), dither), code);
            }
            for code in 0..=127 {
                assert_eq!(encode::<M_MAX>(decode::<M_MAX>(code), dither), code);
            }
        }
    }

    /// Over all dithers the mean of the decoded value is the value, in f64.
    #[test]
    fn rounding_is_unbiased_between_all_neighbours() {
        for code in (0..127).step_by(9).chain([126]) {
            let low = f64::from(decode::<M_MAX>(code));
            let gap = f64::from(decode::<M_MAX>(code + 1)) - low;
            for fraction in [0.0, 0.1, 0.5, 0.9] {
                let x = (low + fraction * gap) as f32;
                let sum: f64 =
                    (0..=0xffff).map(|d| f64::from(decode::<M_MAX>(encode::<M_MAX>(x, d)))).sum();
                // Sixteen bits of dither: half of a 65536th of the gap.
                let bias = (sum / 65536.0 - f64::from(x)).abs();
                assert!(bias <= 0.51 * gap / 65536.0, "code {code} + {fraction}: {bias:e}");
            }
        }
    }

    #[test]
    fn scales_are_powers_of_two_that_cover_the_block() {
        for (largest, want) in [
            (1.0, 1.0),
            (1.000_000_1, 2.0),
            (0.75, 1.0),
            (3e-5, 2f32.powi(-15)),
            (0.0, 2f32.powi(-100)),
            (1e-40, 2f32.powi(-100)),
            (f32::MAX, 2f32.powi(127)),
        ] {
            assert_eq!(block_scale(largest), want, "{largest:e}");
        }
        assert!(block_scale(f32::INFINITY).is_nan() && block_scale(f32::NAN).is_nan());
        // Beyond the scale the largest code is taken.
        assert_eq!(encode::<M_MAX>(1.99, 0xffff), M_MAX);
    }
}

//! Comparison per element *and* in similarity: one wrong element cannot hide in an average.

/// How far two tensors are apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Largest |got − want|.
    pub max_abs: f64,
    /// Largest |got − want| / max |want|: the error relative to the tensor's scale.
    pub max_rel: f64,
    /// ‖got − want‖ / ‖want‖ (the numerator itself when `want` is zero).
    pub norm_rel: f64,
    /// Cosine of the angle between them; 1 when both are zero.
    pub cosine: f64,
    /// Index of the largest difference.
    pub worst_index: usize,
    /// Values there: (got, want).
    pub worst: (f64, f64),
}

/// Compares; panics if the lengths differ. A NaN or infinity that is not in both makes every
/// distance infinite and the cosine 0.
pub fn compare(got: &[f64], want: &[f64]) -> Comparison {
    assert_eq!(got.len(), want.len(), "tensors of different length");
    let (mut max_abs, mut worst_index, mut broken) = (0.0f64, 0, false);
    let (mut dot, mut got_sq, mut want_sq, mut diff_sq) = (0.0, 0.0, 0.0, 0.0);
    let mut scale = 0.0f64;
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        if g == w {
            // Equal infinities are equal; their difference would be NaN.
            if g.is_finite() {
                (dot, got_sq, want_sq) = (dot + g * w, got_sq + g * g, want_sq + w * w);
                scale = scale.max(w.abs());
            }
            continue;
        }
        let difference = (g - w).abs();
        if !difference.is_finite() {
            if !broken {
                (broken, worst_index) = (true, i);
            }
            continue;
        }
        if difference > max_abs && !broken {
            (max_abs, worst_index) = (difference, i);
        }
        (dot, got_sq, want_sq) = (dot + g * w, got_sq + g * g, want_sq + w * w);
        diff_sq += difference * difference;
        scale = scale.max(w.abs());
    }
    let worst = got.get(worst_index).copied().zip(want.get(worst_index).copied());
    let worst = worst.unwrap_or((0.0, 0.0));
    if broken {
        let inf = f64::INFINITY;
        let (max_abs, max_rel, norm_rel) = (inf, inf, inf);
        return Comparison { max_abs, max_rel, norm_rel, cosine: 0.0, worst_index, worst };
    }
    let relative = |x: f64, to: f64| if to > 0.0 { x / to } else { x };
    let cosine = if got_sq == 0.0 && want_sq == 0.0 {
        1.0
    } else if got_sq == 0.0 || want_sq == 0.0 {
        0.0
    } else {
        dot / (got_sq.sqrt() * want_sq.sqrt())
    };
    Comparison {
        max_abs,
        max_rel: relative(max_abs, scale),
        norm_rel: relative(diff_sq.sqrt(), want_sq.sqrt()),
        cosine,
        worst_index,
        worst,
    }
}

/// Panics unless every element is within `tolerance` of the scale of `want` and the cosine
/// is at least 1 − `tolerance`².
///
/// The second bound follows from the first for errors that look like noise; it catches a small
/// but systematic difference spread over many elements.
#[track_caller]
pub fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let c = compare(got, want);
    let cosine_bound = 1.0 - (tolerance * tolerance).max(1e-12);
    assert!(
        c.max_rel <= tolerance && c.cosine >= cosine_bound,
        "{what}: max error {:.3e} of the scale (allowed {tolerance:.3e}), cosine 1-{:.3e}, \
         worst at {}: got {:e}, want {:e}",
        c.max_rel,
        1.0 - c.cosine,
        c.worst_index,
        c.worst.0,
        c.worst.1
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_element_is_seen() {
        let want = vec![1.0; 1000];
        let mut got = want.clone();
        got[617] = 1.5;
        let c = compare(&got, &want);
        assert_eq!((c.worst_index, c.max_abs, c.worst), (617, 0.5, (1.5, 1.0)));
        assert!(c.cosine > 0.999);
    }

    #[test]
    fn nan_is_never_close() {
        let c = compare(&[1.0, f64::NAN], &[1.0, 2.0]);
        assert_eq!((c.max_rel, c.cosine, c.worst_index), (f64::INFINITY, 0.0, 1));
        assert_eq!(compare(&[f64::INFINITY], &[f64::INFINITY]).max_abs, 0.0);
    }

    #[test]
    fn zero_against_zero_is_equal_and_zero_against_something_is_not() {
        assert_eq!(compare(&[0.0, 0.0], &[0.0, 0.0]).cosine, 1.0);
        assert_eq!(compare(&[0.0, 0.0], &[0.0, 1.0]).cosine, 0.0);
    }
}

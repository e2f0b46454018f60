//! Learning rate as a pure function of the step: linear warm-up, then one of three shapes.
//!
//! The formulas are those of `transformers.get_scheduler`; nothing is state, so resuming is
//! evaluating at another step.

use clap::ValueEnum;
use std::fmt;

/// What happens to the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LrSchedulerType {
    /// Stays.
    Constant,
    /// Falls linearly to zero at the last step.
    Linear,
    /// Falls along half a cosine to zero at the last step.
    Cosine,
}

impl fmt::Display for LrSchedulerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        })
    }
}

/// A learning rate for every step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: LrSchedulerType,
    /// The peak.
    pub learning_rate: f64,
    /// Steps of linear rise from 0; step `warmup_steps` is the first at the peak.
    pub warmup_steps: u64,
    /// Optimizer steps of the whole run, warm-up included.
    pub total_steps: u64,
}

impl Schedule {
    /// Returns the learning rate of the 0-based `step`.
    ///
    /// Constant has warm-up too, as transformers' `constant_with_warmup`. With w = `warmup_steps`
    /// and n = `total_steps`, relative to the peak: step / w before w, then 1, or
    /// max(0, (n − step) / (n − w)), or ½ (1 + cos(π (step − w) / (n − w))); a denominator below
    /// 1 counts as 1. Beyond the last step linear stays 0 and cosine rises again, as there.
    pub fn at(&self, step: u64) -> f64 {
        let after_warmup = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let factor = if step < self.warmup_steps {
            step as f64 / self.warmup_steps as f64
        } else {
            match self.kind {
                LrSchedulerType::Constant => 1.0,
                LrSchedulerType::Linear => {
                    self.total_steps.saturating_sub(step) as f64 / after_warmup
                }
                LrSchedulerType::Cosine => {
                    let progress = (step - self.warmup_steps) as f64 / after_warmup;
                    0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
                }
            }
        };
        self.learning_rate * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LrSchedulerType::{Constant, Cosine, Linear};

    /// Every expected value below is the peak times a factor with a short closed form; two
    /// roundings separate it from `at`.
    #[track_caller]
    fn assert_at(kind: LrSchedulerType, warmup_steps: u64, total_steps: u64, want: &[(u64, f64)]) {
        let schedule = Schedule { kind, learning_rate: 2e-4, warmup_steps, total_steps };
        for &(step, factor) in want {
            let (got, want) = (schedule.at(step), 2e-4 * factor);
            let close = (got - want).abs() <= 4.0 * f64::EPSILON * 2e-4;
            assert!(close, "{kind} at {step}: got {got:e}, want {want:e}");
        }
    }

    #[test]
    fn constant_stays_at_the_peak_after_a_linear_rise() {
        assert_at(Constant, 0, 10, &[(0, 1.0), (9, 1.0), (1000, 1.0)]);
        assert_at(Constant, 4, 10, &[(0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (10, 1.0)]);
    }

    #[test]
    fn linear_reaches_zero_at_the_last_step_and_stays() {
        assert_at(Linear, 0, 8, &[(0, 1.0), (2, 0.75), (7, 0.125), (8, 0.0), (9, 0.0)]);
        // Ten steps remain after two of warm-up: (12 - step) / 10.
        assert_at(Linear, 2, 12, &[(0, 0.0), (1, 0.5), (2, 1.0), (5, 0.7), (11, 0.1), (12, 0.0)]);
    }

    #[test]
    fn cosine_is_half_a_wave() {
        let root3 = 3.0f64.sqrt();
        // A sixth of half a wave is 30 degrees: cos is 1, root 3 / 2, 1/2, 0, -1/2, ..., -1.
        let sixths = [
            (0, 1.0),
            (1, 0.5 + root3 / 4.0),
            (2, 0.75),
            (3, 0.5),
            (4, 0.25),
            (5, 0.5 - root3 / 4.0),
            (6, 0.0),
        ];
        assert_at(Cosine, 0, 6, &sixths);
        let warmed = sixths.map(|(step, factor)| (step + 3, factor));
        assert_at(Cosine, 3, 9, &warmed);
        assert_at(Cosine, 3, 9, &[(0, 0.0), (1, 1.0 / 3.0), (2, 2.0 / 3.0)]);
        // As in transformers, which does not clamp the progress.
        assert_at(Cosine, 0, 6, &[(12, 1.0)]);
    }

    #[test]
    fn runs_shorter_than_their_warmup_are_defined() {
        for kind in [Constant, Linear, Cosine] {
            assert_at(kind, 10, 4, &[(0, 0.0), (3, 0.3), (9, 0.9)]);
        }
        assert_at(Linear, 10, 4, &[(10, 0.0)]);
        assert_at(Cosine, 10, 4, &[(10, 1.0)]);
        assert_at(Constant, 0, 0, &[(0, 1.0)]);
        assert_at(Linear, 0, 0, &[(0, 0.0)]);
        assert_at(Cosine, 0, 0, &[(0, 1.0)]);
        assert_at(Linear, u64::MAX, u64::MAX, &[(0, 0.0), (u64::MAX, 0.0)]);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for kind in [Constant, Linear, Cosine] {
            assert_eq!(LrSchedulerType::from_str(&kind.to_string(), false), Ok(kind));
        }
        assert!(LrSchedulerType::from_str("polynomial", false).is_err());
    }
}

//! The one error type of the library, and the exit code each kind of failure gives.

use std::fmt;
use std::path::{Path, PathBuf};

/// Shorthand used across the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which of the user's files a complaint is about; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A run configuration: exit 2.
    Config,
    /// Training or evaluation rows: exit 3.
    Data,
    /// `config.json`, weights, tokenizer, template, checkpoint, reference: exit 4.
    Model,
}

/// What is wrong in one place of one file, in the order a reader needs it.
///
/// Boxed inside [`Error::File`] so that `Result` stays small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// Decides the exit code.
    pub kind: FileKind,
    /// The file (or directory) at fault.
    pub path: PathBuf,
    /// Where in it, e.g. ``line 17, `messages[3].content` ``; empty when the whole file is meant.
    pub place: String,
    /// What hooke needs there.
    pub expected: String,
    /// What it found.
    pub got: String,
    /// What the user can do about it; empty when it is obvious.
    pub fix: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        write!(f, ": expected {}, got {}", self.expected, self.got)?;
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

/// Everything that can go wrong in the library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operator was handed operands that do not fit each other: a bug in the caller.
    #[error("{op}: {operand} has {got}, expected {expected}")]
    Operand {
        /// Operator and pass, e.g. `rmsnorm.forward`.
        op: &'static str,
        /// Name of the operand in the operator's contract.
        operand: &'static str,
        /// What the contract asks for.
        expected: String,
        /// What was passed.
        got: String,
    },
    /// A command-line option or a combination of options that cannot work.
    #[error("{option}: expected {expected}, got {got}")]
    Usage {
        /// The option as the user types it, e.g. `--max-steps`.
        option: String,
        /// Values that would work.
        expected: String,
        /// The value given.
        got: String,
    },
    /// Something in one of the user's files.
    #[error("{0}")]
    File(Box<FileProblem>),
    /// The data, as a whole, cannot be trained on or evaluated.
    #[error("{problem}\n  fix: {fix}")]
    Data {
        /// What is wrong, with counts.
        problem: String,
        /// What to change.
        fix: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: `read`, `create`, `rename`, ...
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The output directory already holds something.
    #[error("output directory {} is not empty\n  fix: choose another --output-dir, or remove it", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Memory for a named purpose could not be had.
    #[error("cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// How much was asked for.
        bytes: usize,
    },
    /// The machine lacks something that hooke needs.
    #[error("device: {problem}")]
    Device {
        /// What is missing, and what to do.
        problem: String,
    },
    /// A loss or gradient is NaN or infinite; raised before any weight is touched.
    #[error(
        "step {step}: {what} is {value}; stopped before the update\n  \
         fix: use a lower learning rate or a longer warmup (metrics.jsonl has the steps before)"
    )]
    NonFinite {
        /// Optimizer step (1-based) that would have been applied.
        step: u64,
        /// `loss` or `grad_norm`.
        what: &'static str,
        /// The offending value.
        value: f64,
    },
    /// Numbers that a trained or given model leads to are NaN, infinite, or too large for a file.
    #[error("{problem}\n  fix: {fix}")]
    Overflow {
        /// What was computed, and where.
        problem: String,
        /// What to change.
        fix: String,
    },
    /// `hooke validate` found differences beyond tolerance.
    #[error("{failed} of {total} tensors are outside their tolerance")]
    Validation {
        /// Rows that failed.
        failed: usize,
        /// Rows compared.
        total: usize,
    },
}

impl Error {
    /// Builds a complaint about one place of a file; see [`FileProblem`] for the fields.
    pub fn file(
        kind: FileKind,
        path: &Path,
        place: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::File(Box::new(FileProblem {
            kind,
            path: path.to_path_buf(),
            place: place.into(),
            expected: expected.into(),
            got: got.into(),
            fix: fix.into(),
        }))
    }

    /// Wraps an I/O error with what was attempted and where; for use in `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The process exit code this error leads to (the table is in the README).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Operand { .. } => 1,
            Self::Usage { .. } => 2,
            Self::File(problem) => match problem.kind {
                FileKind::Config => 2,
                FileKind::Data => 3,
                FileKind::Model => 4,
            },
            Self::Data { .. } => 3,
            Self::Device { .. } | Self::OutOfMemory { .. } => 5,
            Self::NonFinite { .. } | Self::Overflow { .. } => 6,
            Self::Io { .. } | Self::NotEmpty { .. } => 7,
            Self::Validation { .. } => 8,
        }
    }
}

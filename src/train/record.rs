//! `metrics.jsonl`: one row per optimizer step, flushed as it is written.

use crate::error::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepRecord {
    /// Counted from 1.
    pub step: u64,
    /// Mean negative log-likelihood of the step's trained tokens before its update, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Tokens that went through the model in this step.
    pub input_tokens: usize,
    /// Tokens that the loss counted in this step.
    pub trained_tokens: usize,
    /// Input tokens per second of this step.
    pub tokens_per_s: f64,
}

/// Appends records to a file that did not exist before; the file holds whole rows only.
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
    /// Bytes of the rows written.
    len: u64,
}

impl MetricsWriter {
    /// Creates the file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(Error::io("create", path))?;
        Ok(Self { file, path: path.to_path_buf(), len: 0 })
    }

    /// Writes one row with a single call, so that a reader never sees half of it. What a full disk
    /// took of a row is removed again.
    pub fn write(&mut self, record: &StepRecord) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(std::io::Error::other)
            .map_err(Error::io("write", &self.path))?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // Shrinking needs no space. Should it fail all the same, the first error is the one
            // that explains.
            let _ = self.file.set_len(self.len);
            return Err(Error::io("write", &self.path)(error));
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Makes the rows durable.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("sync", &self.path))
    }
}

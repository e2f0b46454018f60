//! Errors that happen where nobody can be told: while something is dropped.

use crate::error::{Error, Result};
use std::sync::{Mutex, PoisonError};

/// The first error since it was last asked for.
#[derive(Debug, Default)]
pub struct Pending(Mutex<Option<Error>>);

impl Pending {
    /// Keeps the error of a failed call, unless an earlier one is kept already.
    pub(super) fn record(&self, result: Result<()>) {
        if let Err(error) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Returns what is kept, once.
    pub fn take(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

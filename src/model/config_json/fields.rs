//! Typed access to the fields of a JSON object, each failure naming the field.

use crate::error::{Error, FileKind, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The largest size a field may state. Token ids and positions are `i32`, and products of two
/// such sizes still fit `usize`.
const MAX_SIZE: u64 = i32::MAX as u64;

/// One JSON object of a file.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    path: &'a Path,
    object: &'a Map<String, Value>,
    /// Name of the object within the file and a dot; empty for the file's own object.
    prefix: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: &'a Path, object: &'a Map<String, Value>, prefix: &'a str) -> Self {
        Self { path, object, prefix }
    }

    /// The value as written, `None` when absent. JSON `null` is a value.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field)
    }

    /// The value, `None` when absent or `null`.
    pub(super) fn non_null(&self, field: &str) -> Option<&'a Value> {
        self.get(field).filter(|value| !value.is_null())
    }

    /// There is no field at all.
    pub(super) fn is_empty(&self) -> bool {
        self.object.is_empty()
    }

    /// The error for a field.
    pub(super) fn error(
        &self,
        field: &str,
        expected: impl Into<String>,
        got: impl Into<String>,
        fix: impl Into<String>,
    ) -> Error {
        let place = format!("`{}{field}`", self.prefix);
        Error::file(FileKind::Model, self.path, place, expected, got, fix)
    }

    /// The object under `field`, `None` when absent or `null`. `prefix` must be `field` and a dot.
    pub(super) fn object(&self, field: &str, prefix: &'a str) -> Result<Option<Fields<'a>>> {
        match self.non_null(field) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields { object, prefix, ..*self })),
            Some(other) => Err(self.error(field, "an object or null", show(other), "")),
        }
    }

    /// A size of at least one, `None` when absent or `null`.
    pub(super) fn optional_size(&self, field: &str) -> Result<Option<usize>> {
        self.non_null(field).map(|value| self.to_size(field, value)).transpose()
    }

    /// A size of at least one.
    pub(super) fn size(&self, field: &str, default: usize) -> Result<usize> {
        self.get(field).map_or(Ok(default), |value| self.to_size(field, value))
    }

    fn to_size(self, field: &str, value: &Value) -> Result<usize> {
        match value.as_u64() {
            Some(n) if (1..=MAX_SIZE).contains(&n) => Ok(n as usize),
            _ => {
                let expected = format!("an integer from 1 to {MAX_SIZE}");
                Err(self.error(field, expected, show(value), ""))
            }
        }
    }

    /// A finite number greater than zero.
    pub(super) fn positive(&self, field: &str, default: f64) -> Result<f64> {
        self.get(field).map_or(Ok(default), |value| self.to_positive(field, value))
    }

    /// A finite number greater than zero, which must be there.
    pub(super) fn required_positive(&self, field: &str) -> Result<f64> {
        match self.get(field) {
            Some(value) => self.to_positive(field, value),
            None => Err(self.error(field, "a number greater than 0", "nothing", "")),
        }
    }

    fn to_positive(self, field: &str, value: &Value) -> Result<f64> {
        match value.as_f64() {
            Some(x) if x > 0.0 && x.is_finite() => Ok(x),
            _ => Err(self.error(field, "a finite number greater than 0", show(value), "")),
        }
    }

    /// A truth value.
    pub(super) fn flag(&self, field: &str, default: bool) -> Result<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.error(field, "true or false", show(other), "")),
        }
    }

    /// A string.
    pub(super) fn text(&self, field: &str, default: &'a str) -> Result<&'a str> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.error(field, "a string", show(other), "")),
        }
    }
}

/// A value as an error message shows it: never longer than a line.
pub(super) fn show(value: &Value) -> String {
    const MAX_CHARS: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

//! Where constructors get their tensors from: a device, or a table that only counts.
//!
//! What holds many tensors is built by one function over [`Allocate`]. Given a device it makes the
//! tensors; given a [`MemoryTable`] it makes nothing and the table has a row for each. So the plan of
//! a run is the construction itself, and cannot differ from it.

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tensor::Tensor;
use serde::Serialize;
use std::fmt;

/// Every tensor starts at a multiple of this many bytes.
const ALIGN: usize = 256;

/// Makes tensors, or what stands for them.
pub trait Allocate {
    /// A tensor, or `()`.
    type Tensor;
    /// Names the part of the program that what follows belongs to.
    fn section(&mut self, _name: &'static str) {}
    /// Zeros for `what`.
    fn zeros(&mut self, what: &str, shape: Shape, dtype: DType) -> Result<Self::Tensor>;
}

impl Allocate for &Device {
    type Tensor = Tensor;
    fn zeros(&mut self, what: &str, shape: Shape, dtype: DType) -> Result<Tensor> {
        Tensor::zeros(self, what, shape, dtype)
    }
}

/// Memory for one purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryRow {
    /// Part of the program, e.g. `activations`.
    pub section: &'static str,
    /// What for.
    pub what: String,
    /// How many tensors.
    pub count: usize,
    /// All of them together, in bytes.
    pub bytes: usize,
}

/// What a run will allocate, by purpose.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemoryTable {
    section: &'static str,
    rows: Vec<MemoryRow>,
}

impl MemoryTable {
    /// Counts `bytes` more for `what`, rounded up to whole pieces of memory.
    pub fn add(&mut self, what: &str, bytes: usize) -> Result<()> {
        let too_much = || Error::OutOfMemory { what: what.into(), bytes: usize::MAX };
        let bytes = bytes.checked_next_multiple_of(ALIGN).ok_or_else(too_much)?;
        self.total_bytes().checked_add(bytes).ok_or_else(too_much)?;
        let section = self.section;
        match self.rows.iter_mut().find(|row| row.section == section && row.what == what) {
            Some(row) => {
                row.count += 1;
                row.bytes += bytes;
            }
            None => self.rows.push(MemoryRow { section, what: what.into(), count: 1, bytes }),
        }
        Ok(())
    }

    /// The rows, in the order in which they are allocated.
    pub fn rows(&self) -> &[MemoryRow] {
        &self.rows
    }

    /// Everything together.
    pub fn total_bytes(&self) -> usize {
        self.rows.iter().map(|row| row.bytes).sum()
    }

    /// The bytes of one part.
    pub fn section_bytes(&self, section: &str) -> usize {
        self.rows.iter().filter(|row| row.section == section).map(|row| row.bytes).sum()
    }
}

impl Allocate for MemoryTable {
    type Tensor = ();
    fn section(&mut self, name: &'static str) {
        self.section = name;
    }
    fn zeros(&mut self, what: &str, shape: Shape, dtype: DType) -> Result<()> {
        let bytes = shape.num_elems().checked_mul(dtype.size_bytes());
        let too_much = || Error::OutOfMemory { what: what.into(), bytes: usize::MAX };
        self.add(what, bytes.ok_or_else(too_much)?)
    }
}

impl fmt::Display for MemoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sections: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !sections.contains(&row.section) {
                sections.push(row.section);
            }
        }
        for section in sections {
            writeln!(f, "{section:<44} {:>12}", mebibytes(self.section_bytes(section)))?;
            for row in self.rows.iter().filter(|row| row.section == section) {
                let times = if row.count > 1 { format!(" x {}", row.count) } else { String::new() };
                let what = format!("{}{times}", row.what);
                writeln!(f, "  {what:<42} {:>12}", mebibytes(row.bytes))?;
            }
        }
        write!(f, "{:<44} {:>12}", "total", mebibytes(self.total_bytes()))
    }
}

/// "12.3 MiB".
pub fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_purpose_are_added_up_and_every_piece_is_rounded() {
        let mut table = MemoryTable::default();
        table.section("activations");
        for _ in 0..3 {
            table.zeros("residual", Shape::from([5, 7]), DType::BF16).unwrap();
        }
        table.section("head");
        table.zeros("logits", Shape::from([64]), DType::F32).unwrap();
        assert_eq!(table.rows()[0].bytes, 3 * 256);
        assert_eq!((table.section_bytes("head"), table.total_bytes()), (256, 4 * 256));
        let text = table.to_string();
        assert!(text.contains("residual x 3") && text.contains("total"), "{text}");
    }

    #[test]
    fn more_than_the_address_space_is_an_error() {
        let mut table = MemoryTable::default();
        assert!(table.zeros("a", Shape::from([usize::MAX / 4]), DType::F64).is_err());
        table.add("b", usize::MAX / 2).unwrap();
        table.add("c", usize::MAX / 4).unwrap();
        assert!(table.add("d", usize::MAX / 2).is_err());
    }
}

//! The header of a safetensors file: eight bytes of length, JSON, then the data it describes.
//!
//! Source: the format section of the safetensors README. Holding a [`Header`] proves all of it:
//! names are unique, every range is exactly its shape times its element size, and the ranges cover
//! the data without gaps or overlaps.

use super::json_map::{UniqueKeys, UniqueMap};
use crate::error::{Error, FileKind, Result};
use crate::shape::Shape;
use safetensors::Dtype;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Longest header that readers of the format accept.
const MAX_HEADER_BYTES: usize = 100_000_000;
/// Bytes of the length in front.
pub(super) const LENGTH_BYTES: usize = 8;
/// The one key that is not a tensor.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorEntry {
    /// Unique within the file.
    pub name: String,
    /// Element type in the file.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Shape,
    /// Where its bytes lie, counted from the end of the header.
    pub range: Range<usize>,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Header {
    /// Free-form strings, in the order written.
    pub(super) metadata: Vec<(String, String)>,
    /// In the order of their bytes.
    pub(super) tensors: Vec<TensorEntry>,
    /// First byte of the data within the file.
    pub(super) data_start: usize,
}

impl Header {
    /// Parses and checks the header of the file `bytes`; `path` is only named in errors.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let wrong = |place: &str, expected: String, got: String| {
            Error::file(FileKind::Model, path, place, expected, got, TRUNCATED)
        };
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            let expected = format!("at least {LENGTH_BYTES} bytes of safetensors");
            return Err(wrong("", expected, format!("{} bytes", bytes.len())));
        };
        let length = u64::from_le_bytes(*length);
        let fits = usize::try_from(length).ok().filter(|&n| n <= MAX_HEADER_BYTES.min(rest.len()));
        let Some(length) = fits else {
            let expected =
                format!("a header of at most {} bytes", MAX_HEADER_BYTES.min(rest.len()));
            return Err(wrong("header length", expected, length.to_string()));
        };
        let (json, data) = rest.split_at(length);
        if json.first() != Some(&b'{') {
            let got = json.first().map_or("nothing".into(), |b| format!("byte {b:#04x}"));
            return Err(wrong("header", "an opening brace".into(), got));
        }
        let raw: RawHeader = serde_json::from_slice(json)
            .map_err(|e| wrong("header", "JSON that describes tensors".into(), e.to_string()))?;
        let tensors = check(path, raw.tensors, data.len())?;
        Ok(Self { metadata: raw.metadata.0, tensors, data_start: LENGTH_BYTES + length })
    }
}

const TRUNCATED: &str = "the file is damaged or not complete: fetch it again";

/// Sorts the tensors by offset and checks sizes and coverage.
fn check(
    path: &Path,
    raw: Vec<(String, RawTensor)>,
    data_bytes: usize,
) -> Result<Vec<TensorEntry>> {
    let mut tensors = Vec::with_capacity(raw.len());
    for (name, RawTensor { dtype, shape, data_offsets: (start, end) }) in raw {
        let wrong = |expected: String, got: String| {
            let place = format!("`{name}`");
            Error::file(FileKind::Model, path, place, expected, got, TRUNCATED)
        };
        let Some(dims) = Shape::new(&shape) else {
            let expected = "a shape of rank at most 4 that does not overflow".into();
            return Err(wrong(expected, format!("{shape:?}")));
        };
        let num_bits = dims.num_elems().checked_mul(dtype.bitsize());
        let Some(num_bytes) = num_bits.filter(|bits| bits % 8 == 0).map(|bits| bits / 8) else {
            return Err(wrong("a whole number of bytes".into(), format!("{dims} of {dtype}")));
        };
        if end.checked_sub(start) != Some(num_bytes) || end > data_bytes {
            let expected = format!("{num_bytes} bytes within the {data_bytes} of the data");
            return Err(wrong(expected, format!("offsets {start} to {end}")));
        }
        tensors.push(TensorEntry { name, dtype, shape: dims, range: start..end });
    }
    // Stable, so that empty tensors keep their order.
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    let mut covered = 0;
    for tensor in &tensors {
        if tensor.range.start != covered {
            let place = format!("`{}`", tensor.name);
            let expected = format!("data from byte {covered} on, where its predecessor ends");
            let got = format!("byte {}", tensor.range.start);
            return Err(Error::file(FileKind::Model, path, place, expected, got, TRUNCATED));
        }
        covered = tensor.range.end;
    }
    if covered != data_bytes {
        let expected = format!("{covered} bytes of data, which is where the last tensor ends");
        let got = format!("{data_bytes} bytes");
        return Err(Error::file(FileKind::Model, path, "", expected, got, TRUNCATED));
    }
    Ok(tensors)
}

/// The JSON before any check of meaning.
#[derive(Debug, Default)]
struct RawHeader {
    metadata: UniqueMap<String>,
    tensors: Vec<(String, RawTensor)>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawHeaderVisitor)
    }
}

struct RawHeaderVisitor;

impl<'de> Visitor<'de> for RawHeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut keys = UniqueKeys::default();
        let mut header = RawHeader::default();
        while let Some(name) = keys.next(&mut map)? {
            let context = |error: A::Error| A::Error::custom(format_args!("`{name}`: {error}"));
            if name == METADATA_KEY {
                // Written as null by some tools that have none.
                let metadata = map.next_value::<Option<UniqueMap<String>>>().map_err(context)?;
                header.metadata = metadata.unwrap_or_default();
            } else {
                let tensor = map.next_value::<RawTensor>().map_err(context)?;
                header.tensors.push((name, tensor));
            }
        }
        Ok(header)
    }
}

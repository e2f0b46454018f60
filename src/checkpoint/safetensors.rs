//! safetensors files: mapped and checked when read, streamed when written.

use super::header::{Header, LENGTH_BYTES, METADATA_KEY};
use super::open_file;
use crate::device::mapped::MappedFile;
use crate::error::{Error, Result};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub use super::header::TensorEntry;

// The format is little-endian, and the readers reinterpret its bytes in place.
const _: () = assert!(cfg!(target_endian = "little"));

/// A mapped file whose header was checked in full: see [`TensorEntry`] for what it lists.
#[derive(Debug)]
pub struct SafetensorsFile {
    map: MappedFile,
    header: Header,
    index: HashMap<String, usize>,
}

impl SafetensorsFile {
    /// Maps `path` and checks its header; the data itself is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let map = open_file(path)?;
        let header = Header::parse(path, map.as_slice())?;
        let names = header.tensors.iter().enumerate();
        let index = names.map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Ok(Self { map, header, index })
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// The free-form strings of the header, in their order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.header.metadata
    }

    /// Every tensor, in the order of the data.
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.header.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.index.get(name).map(|&i| &self.header.tensors[i])
    }

    /// The bytes of a tensor of this file, not aligned to anything; panics for another file's.
    pub fn bytes(&self, tensor: &TensorEntry) -> &[u8] {
        &self.map.as_slice()[self.header.data_start..][tensor.range.clone()]
    }
}

/// Name, element type and dimensions of a tensor about to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewTensor<'a> {
    /// Unique within the file.
    pub name: &'a str,
    /// Element type in the file.
    pub dtype: Dtype,
    /// Dimensions.
    pub dims: &'a [usize],
}

/// Writes one file front to back: the header at once, then the data as it comes.
///
/// Meant for a file within a [`super::atomic::StagedDir`], which removes it if anything fails.
#[derive(Debug)]
pub struct SafetensorsWriter {
    file: BufWriter<File>,
    path: PathBuf,
    remaining_bytes: usize,
}

impl SafetensorsWriter {
    /// Creates `path` and writes the header. The data of `tensors` must follow in this order.
    ///
    /// `format` is added to the metadata unless it is there: transformers asks for it. Panics if
    /// the sizes overflow.
    pub fn create(
        path: &Path,
        metadata: &[(String, String)],
        tensors: &[NewTensor<'_>],
    ) -> Result<Self> {
        let (header, data_bytes) = header_bytes(metadata, tensors);
        let file = File::create(path).map_err(Error::io("create", path))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let length = (header.len() as u64).to_le_bytes();
        file.write_all(&length)
            .and_then(|()| file.write_all(&header))
            .map_err(Error::io("write", path))?;
        Ok(Self { file, path: path.into(), remaining_bytes: data_bytes })
    }

    /// Appends data; panics beyond what the header promised.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        assert!(bytes.len() <= self.remaining_bytes, "more data than the header describes");
        self.remaining_bytes -= bytes.len();
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Hands the last bytes to the system; panics if some tensor is not complete.
    pub fn finish(mut self) -> Result<()> {
        assert_eq!(self.remaining_bytes, 0, "less data than the header describes");
        self.file.flush().map_err(Error::io("write", &self.path))
    }
}

/// The JSON, padded with spaces so that the data begins at a multiple of eight bytes, and the size
/// of the data.
fn header_bytes(metadata: &[(String, String)], tensors: &[NewTensor<'_>]) -> (Vec<u8>, usize) {
    let mut strings: Map<String, Value> =
        metadata.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    strings.entry("format").or_insert("pt".into());
    let mut object = Map::new();
    object.insert(METADATA_KEY.into(), strings.into());
    let mut offset = 0;
    for &NewTensor { name, dtype, dims } in tensors {
        let num_bytes = dims.iter().product::<usize>() * dtype.bitsize() / 8;
        let offsets = [offset, offset + num_bytes];
        object.insert(
            name.into(),
            json!({"dtype": dtype.to_string(), "shape": dims, "data_offsets": offsets}),
        );
        offset += num_bytes;
    }
    let mut header = Value::from(object).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
    (header, offset)
}

//! Files of weights: Hugging Face directories in and out, and numeric references.

pub mod atomic;
mod companions;
mod convert;
mod header;
mod json_map;
pub mod model_dir;
pub mod reference;
pub mod safetensors;
mod shards;

use crate::device::mapped::MappedFile;
use crate::error::{Error, FileKind, Result};
use std::path::Path;

/// Maps a file that a model needs; an absent or irregular one is the model's fault, anything else
/// (permissions, a failing disk) the system's.
fn open_file(path: &Path) -> Result<MappedFile> {
    let wrong = |got: &str| Error::file(FileKind::Model, path, "", "a file", got, "");
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => MappedFile::open(path),
        Ok(metadata) if metadata.is_dir() => Err(wrong("a directory")),
        Ok(_) => Err(wrong("something that is not a regular file")),
        Err(error) if is_absence(&error) => Err(wrong("nothing of that name")),
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

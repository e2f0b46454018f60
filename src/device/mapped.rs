//! Read-only files mapped into memory.

use crate::error::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A whole regular file, mapped read-only. Holding one proves that the file could be opened,
/// is a regular file, and had `as_slice().len()` bytes when it was mapped.
#[derive(Debug)]
pub struct MappedFile {
    map: Option<memmap2::Mmap>,
    path: PathBuf,
}

impl MappedFile {
    /// Maps `path`. An empty file gives an empty slice.
    pub fn open(path: &Path) -> Result<Self> {
        // Metadata first: opening a FIFO would block for ever.
        let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
        if !metadata.is_file() {
            let source = std::io::Error::other("not a regular file");
            return Err(Error::Io { action: "open", path: path.into(), source });
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("read the size of", path))?.len();
        let map = if len == 0 { None } else { Some(map_read_only(&file, path)?) };
        Ok(Self { map, path: path.into() })
    }

    /// The file's bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[allow(unsafe_code)]
fn map_read_only(file: &File, path: &Path) -> Result<memmap2::Mmap> {
    // SAFETY: the mapping is private to this process and read-only, and hooke itself never
    // writes to a file it has mapped (outputs go to new files that are renamed into place).
    // Another process that truncates the file meanwhile ends this one with SIGBUS; that is the
    // documented price of mapping, and why checkpoints are replaced by rename and never in place.
    unsafe { memmap2::Mmap::map(file) }.map_err(Error::io("map", path))
}

//! Output directories that appear whole or not at all.

use crate::error::{Error, Result};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory under construction: a hidden sibling of its destination, renamed into place by
/// [`StagedDir::commit`] and removed on drop otherwise.
///
/// Holding one proves that the destination was absent or empty, that its parent can be written
/// to, and that a rename onto it works. A process that is killed leaves the hidden directory
/// (`.NAME.XXXXXX.partial`) behind, never a partial destination.
#[derive(Debug)]
pub struct StagedDir {
    staging: Option<TempDir>,
    destination: PathBuf,
    /// Ancestors that did not exist, outermost first.
    created: Vec<PathBuf>,
}

impl StagedDir {
    /// Prepares for `destination`, which must be absent or an empty directory
    /// ([`Error::NotEmpty`]). Missing parents are created, and removed again unless committed.
    pub fn new(destination: &Path) -> Result<Self> {
        let existing = existing_empty_dir(destination)?;
        let destination = existing.as_deref().unwrap_or(destination);
        let failed = Error::io("create", destination);
        let Some(name) = destination.file_name() else {
            return Err(failed(io::Error::new(ErrorKind::InvalidInput, "the path ends in `..`")));
        };
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut staged = Self { staging: None, destination: destination.into(), created: vec![] };
        create_parents(parent, &mut staged.created)?;
        let staging = tempfile::Builder::new()
            .prefix(&format!(".{}.", name.to_string_lossy()))
            .suffix(".partial")
            // As any new directory: the umask takes away from this.
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(failed)?;
        if existing.is_some() {
            probe_rename(destination, staging.path())?;
        }
        staged.staging = Some(staging);
        Ok(staged)
    }

    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        // `staging` is only taken by `commit` and `drop`, which consume `self`.
        self.staging.as_ref().map_or(&self.destination, TempDir::path)
    }

    /// Writes a whole file; `name` must be a plain file name.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        assert_eq!(Path::new(name).file_name(), Some(name.as_ref()), "a plain file name");
        let path = self.path().join(name);
        fs::write(&path, bytes).map_err(Error::io("write", &path))
    }

    /// Makes everything durable and gives the directory its name.
    ///
    /// On any failure the destination stays as it was. Should only the last step fail, the rename,
    /// then the finished files are kept in the hidden directory, which the error names.
    pub fn commit(mut self) -> Result<()> {
        let Some(staging) = self.staging.take() else { return Ok(()) };
        sync_tree(staging.path())?;
        if let Err(error) = fs::rename(staging.path(), &self.destination) {
            let kept = staging.keep();
            let message = format!("{error}; the finished files are in {}", kept.display());
            let source = io::Error::new(error.kind(), message);
            return Err(Error::io("rename into", &self.destination)(source));
        }
        // Renamed away: nothing is left for the guards to remove.
        let _ = staging.keep();
        self.created.clear();
        match self.destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
            _ => sync_dir(Path::new(".")),
        }
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        // First, so that the parents are empty.
        drop(self.staging.take());
        for parent in self.created.iter().rev() {
            // Best effort: something else may live there by now.
            let _ = fs::remove_dir(parent);
        }
    }
}

/// The real path of a destination that exists, which must be an empty directory.
fn existing_empty_dir(destination: &Path) -> Result<Option<PathBuf>> {
    match fs::symlink_metadata(destination) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("create", destination)(error)),
    }
    // Renaming onto a symbolic link would replace the link.
    let real = fs::canonicalize(destination).map_err(Error::io("open", destination))?;
    let mut entries = fs::read_dir(&real).map_err(Error::io("create", destination))?;
    match entries.next() {
        None => Ok(Some(real)),
        Some(_) => Err(Error::NotEmpty { path: destination.into() }),
    }
}

fn create_parents(parent: &Path, created: &mut Vec<PathBuf>) -> Result<()> {
    let is_missing = |path: &Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<_> = parent.ancestors().take_while(|path| is_missing(path)).collect();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => created.push(path.into()),
            // Another process was faster.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(Error::io("create", path)(error)),
        }
    }
    Ok(())
}

/// Moves the empty destination away and back. A mount point refuses, and it is better to know
/// that before a day of training than after it.
fn probe_rename(destination: &Path, staging: &Path) -> Result<()> {
    let metadata = fs::metadata(destination).map_err(Error::io("open", destination))?;
    let aside = staging.join("probe");
    fs::rename(destination, &aside).map_err(|error| {
        let source = match error.kind() {
            ErrorKind::ResourceBusy => {
                io::Error::new(error.kind(), "it is a mount point; name a directory inside it")
            }
            _ => error,
        };
        Error::io("replace", destination)(source)
    })?;
    fs::rename(&aside, destination).map_err(Error::io("replace", destination))?;
    fs::set_permissions(staging, metadata.permissions())
        .map_err(Error::io("set the permissions of", staging))
}

/// Waits until every file and directory under `dir` is on the disk.
fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("read", &path))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            file.sync_all().map_err(Error::io("write", &path))?;
        }
    }
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> Result<()> {
    let file = File::open(dir).map_err(Error::io("open", dir))?;
    match file.sync_all() {
        // Some network and user-space file systems cannot synchronise directories.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result.map_err(Error::io("write", dir)),
    }
}

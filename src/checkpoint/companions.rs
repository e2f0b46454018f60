//! The small files that make a directory of weights a model others can load.

use super::atomic::StagedDir;
use super::{is_absence, open_file};
use crate::error::{Error, Result};
use std::fs;
use std::path::Path;

/// Everything beside weights and `config.json` that transformers reads with a language model.
const NAMES: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// Terms under which the model may be passed on, whatever their extension: they go with it.
const NOTICES: [&str; 3] = ["LICENSE", "LICENCE", "NOTICE"];

/// Copies what is there of the above from `source`, byte for byte.
pub(super) fn copy(source: &Path, staged: &StagedDir) -> Result<()> {
    for name in NAMES {
        copy_file(source, name, staged)?;
    }
    let mut notices = Vec::new();
    for entry in fs::read_dir(source).map_err(Error::io("read", source))? {
        let entry = entry.map_err(Error::io("read", source))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let upper = name.to_ascii_uppercase();
        if NOTICES.iter().any(|notice| upper.starts_with(notice)) && entry.path().is_file() {
            notices.push(name);
        }
    }
    notices.iter().try_for_each(|name| copy_file(source, name, staged))
}

fn copy_file(source: &Path, name: &str, staged: &StagedDir) -> Result<()> {
    let path = source.join(name);
    match fs::metadata(&path) {
        Ok(_) => staged.write(name, open_file(&path)?.as_slice()),
        Err(error) if is_absence(&error) => Ok(()),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

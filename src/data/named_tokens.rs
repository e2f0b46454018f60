//! `bos_token`, `eos_token` and the like, from the two small files beside `tokenizer.json`.

use crate::device::mapped::MappedFile;
use crate::error::{Error, FileKind, Result};
use serde_json::Value;
use std::path::Path;

/// The names transformers knows; a chat template sees each as a variable.
pub(super) const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A JSON object in `dir`, or `Value::Null` if the file is absent.
pub(super) fn read_object(dir: &Path, name: &str) -> Result<Value> {
    let path = dir.join(name);
    if !path.exists() {
        return Ok(Value::Null);
    }
    let file = MappedFile::open(&path)?;
    match serde_json::from_slice(file.as_slice()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => {
            Err(Error::file(FileKind::Model, &path, "", "an object", "another JSON value", ""))
        }
        Err(e) => Err(malformed(&path, &e)),
    }
}

/// The complaint for a file that is no JSON.
pub(super) fn malformed(path: &Path, error: &serde_json::Error) -> Error {
    let place = format!("line {}, column {}", error.line(), error.column());
    let got = super::json::bare_message(error);
    Error::file(FileKind::Model, path, place, "valid JSON", got, "")
}

/// The named tokens, in the order of [`NAMES`].
///
/// `tokenizer_config.json` decides, also when it says `null`; `special_tokens_map.json` fills in
/// names it does not mention. A token is a string or an object with `content`.
pub(super) fn named_tokens(
    dir: &Path,
    config: &Value,
    map: &Value,
) -> Result<Vec<(&'static str, String)>> {
    let mut tokens = Vec::new();
    for name in NAMES {
        let (file, value) = match (config.get(name), map.get(name)) {
            (Some(value), _) => ("tokenizer_config.json", value),
            (None, Some(value)) => ("special_tokens_map.json", value),
            (None, None) => continue,
        };
        match value {
            Value::Null => {}
            Value::String(text) => tokens.push((name, text.clone())),
            other => match other["content"].as_str() {
                Some(text) => tokens.push((name, text.to_owned())),
                None => {
                    let (path, place) = (dir.join(file), format!("`{name}`"));
                    let expected = "a string, or an object with `content`";
                    let got = other.to_string();
                    return Err(Error::file(FileKind::Model, &path, place, expected, got, ""));
                }
            },
        }
    }
    Ok(tokens)
}

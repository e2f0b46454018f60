//! Training and evaluation rows: a JSON object per line.
//!
//! | keys | what it is |
//! |---|---|
//! | `text` | a document |
//! | `prompt`, `completion` | a question and the answer to learn |
//! | `messages` | a conversation: a list of `{"role", "content"}` |
//!
//! Other keys are ignored, except those that would change what the row means (`tools`,
//! `tool_calls`, ...), which are refused. Blank lines, a byte-order mark and CRLF are accepted.
//! Every complaint names the file, the line and the field; the first bad line is the one
//! reported, whatever the number of threads.

use super::json::{Json, bare_message};
use crate::device::mapped::MappedFile;
use crate::error::{Error, FileKind, Result};
use rayon::prelude::*;
use std::path::Path;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: one of [`ROLES`].
    pub role: String,
    /// What is said.
    pub content: String,
}

/// The content of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A document, all of it trained.
    Text(String),
    /// Only the completion is trained.
    PromptCompletion {
        /// The given part.
        prompt: String,
        /// The part to learn.
        completion: String,
    },
    /// A conversation for the model's chat template; only the assistant's turns are trained.
    Messages(Vec<Message>),
}

/// A row and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedRow {
    /// Line in the file, from 1.
    pub line: usize,
    /// Its content.
    pub row: Row,
}

/// Roles a message may have. A misspelt `assistant` would otherwise train nothing, silently.
pub const ROLES: [&str; 7] =
    ["system", "developer", "user", "assistant", "tool", "ipython", "function"];

const ONE_OBJECT_PER_LINE: &str = "each line must hold one JSON object (JSON Lines)";
const ROW_KEYS: &str = "`text`, `prompt` and `completion`, or `messages`";

/// Reads every row of `path`; see the module for the format.
///
/// Errors: a line that is no row ([`FileKind::Data`]), no row at all, a file that cannot be
/// mapped (absent, a directory, a pipe).
pub fn read_rows(path: &Path) -> Result<Vec<NumberedRow>> {
    let file = MappedFile::open(path)?;
    let bytes = file.as_slice();
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let lines: Vec<(usize, &[u8])> = bytes
        .split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')))
        .map(|(i, line)| (i + 1, line))
        .collect();
    if lines.is_empty() {
        let got = if bytes.is_empty() { "an empty file" } else { "only blank lines" };
        return Err(Error::file(FileKind::Data, path, "", "at least one row", got, ""));
    }
    // Collected before the first error is picked, so that it is the first of the file.
    let rows: Vec<Result<NumberedRow>> = lines
        .par_iter()
        .map(|&(line, bytes)| match parse_line(bytes) {
            Ok(row) => Ok(NumberedRow { line, row }),
            Err(p) => {
                let place = format!("line {line}{}", p.place);
                Err(Error::file(FileKind::Data, path, place, p.expected, p.got, p.fix))
            }
        })
        .collect();
    rows.into_iter().collect()
}

/// A complaint about one line; `place` continues "line 17".
struct Problem {
    place: String,
    expected: String,
    got: String,
    fix: &'static str,
}

impl Problem {
    fn at(field: &str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        let place = if field.is_empty() { String::new() } else { format!(", `{field}`") };
        Self { place, expected: expected.into(), got: got.into(), fix: "" }
    }
}

fn parse_line(bytes: &[u8]) -> Result<Row, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Problem {
            place: format!(", byte {}", at + 1),
            expected: "UTF-8 text".into(),
            got: format!("byte 0x{:02x}", bytes[at]),
            fix: foreign_format(bytes),
        }
    })?;
    let json = Json::parse(text).map_err(|error| {
        let head = &bytes[..error.column().min(bytes.len())];
        Problem {
            place: format!(", column {}", String::from_utf8_lossy(head).chars().count()),
            expected: "valid JSON".into(),
            got: bare_message(&error),
            fix: ONE_OBJECT_PER_LINE,
        }
    })?;
    row_of(&json)
}

/// A hint for files of another kind, recognised by their first bytes.
fn foreign_format(line: &[u8]) -> &'static str {
    match line {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "this looks like UTF-16; save it as UTF-8",
        [0x1F, 0x8B, ..] | [0x28, 0xB5, 0x2F, 0xFD, ..] => "this looks compressed; unpack it",
        _ => "",
    }
}

fn row_of(json: &Json) -> Result<Row, Problem> {
    let Json::Object(entries) = json else {
        let problem = Problem::at("", "an object", json.describe());
        return Err(Problem { fix: ONE_OBJECT_PER_LINE, ..problem });
    };
    let has = |key| json.get(key).is_some();
    let kinds: Vec<&str> =
        ["text", "prompt", "completion", "messages"].into_iter().filter(|key| has(key)).collect();
    check_no_repeated_key("", entries, &["text", "prompt", "completion", "messages"])?;
    match kinds[..] {
        ["text"] => Ok(Row::Text(string_at(json, "", "text")?)),
        ["messages"] => {
            check_not_given(json, "", &["tools"])?;
            Ok(Row::Messages(messages_of(json)?))
        }
        ["prompt"] | ["completion"] | ["prompt", "completion"] => Ok(Row::PromptCompletion {
            prompt: string_at(json, "", "prompt")?,
            completion: string_at(json, "", "completion")?,
        }),
        [] if entries.is_empty() => Err(Problem::at("", ROW_KEYS, "an object without keys")),
        [] => {
            let shown: Vec<&str> = entries.iter().take(6).map(|(key, _)| key.as_str()).collect();
            let more = if entries.len() > 6 { ", ..." } else { "" };
            let got = format!("only the keys `{}`{more}", shown.join("`, `"));
            let fix = match () {
                () if has("instruction") => {
                    "Alpaca: put `instruction` and `input` into `prompt`, `output` into `completion`"
                }
                () if has("conversations") => {
                    "ShareGPT: write `conversations` as `messages` with `role` and `content`"
                }
                () => "",
            };
            Err(Problem { fix, ..Problem::at("", ROW_KEYS, got) })
        }
        _ => {
            let expected = format!("one kind of row ({ROW_KEYS})");
            Err(Problem::at("", expected, format!("`{}` together", kinds.join("` and `"))))
        }
    }
}

fn messages_of(json: &Json) -> Result<Vec<Message>, Problem> {
    let items = match json.get("messages") {
        Some(Json::Array(items)) => items,
        other => {
            let got = other.map_or_else(|| "nothing".into(), Json::describe);
            return Err(Problem::at("messages", "an array of messages", got));
        }
    };
    if items.is_empty() {
        return Err(Problem::at("messages", "at least one message", "an empty array"));
    }
    items.iter().enumerate().map(|(i, item)| message_of(&format!("messages[{i}]"), item)).collect()
}

fn message_of(field: &str, json: &Json) -> Result<Message, Problem> {
    let Json::Object(entries) = json else {
        return Err(Problem::at(field, "an object with `role` and `content`", json.describe()));
    };
    check_no_repeated_key(field, entries, &["role", "content"])?;
    let dropped = ["tool_calls", "tool_call_id", "function_call", "reasoning_content", "thinking"];
    check_not_given(json, field, &dropped)?;
    let role = string_at(json, field, "role")?;
    if !ROLES.contains(&role.as_str()) {
        let expected = format!("one of {}", ROLES.join(", "));
        return Err(Problem::at(&join(field, "role"), expected, format!("{role:?}")));
    }
    Ok(Message { role, content: string_at(json, field, "content")? })
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn string_at(json: &Json, parent: &str, key: &str) -> Result<String, Problem> {
    match json.get(key) {
        Some(Json::String(text)) => Ok(text.clone()),
        Some(other) => Err(Problem::at(&join(parent, key), "a string", other.describe())),
        None => Err(Problem::at(&join(parent, key), "a string", "nothing: the key is missing")),
    }
}

/// Keys of other readers that change what a row means; dropping them would train another text.
fn check_not_given(json: &Json, parent: &str, keys: &[&str]) -> Result<(), Problem> {
    for key in keys {
        match json.get(key) {
            None | Some(Json::Null) => {}
            Some(Json::Array(items)) if items.is_empty() => {}
            Some(value) => {
                let problem = Problem::at(
                    &join(parent, key),
                    "no such key: hooke would leave it out of the text",
                    value.describe(),
                );
                return Err(Problem { fix: "render it into `content`, or remove it", ..problem });
            }
        }
    }
    Ok(())
}

fn check_no_repeated_key(
    parent: &str,
    entries: &[(String, Json)],
    keys: &[&str],
) -> Result<(), Problem> {
    for &key in keys {
        if entries.iter().filter(|(given, _)| given == key).count() > 1 {
            return Err(Problem::at(&join(parent, key), "the key once", "the key several times"));
        }
    }
    Ok(())
}

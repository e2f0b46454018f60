//! Conversations to ids, by the model's own chat template.
//!
//! # What is trained
//! The turns of the assistant: everything the model has to write after the prompt that
//! `add_generation_prompt` gives it, up to and including the token that ends the turn. What the
//! template prints after that token (a newline, usually) is not trained. If the template marks
//! what the assistant says itself, with `{% generation %}` blocks, these decide, as they do in
//! transformers' `return_assistant_tokens_mask`.
//!
//! A token is trained if any byte of it lies in a trained span (transformers' rule).
//!
//! # Safety of the text
//! The rendered text is tokenised without adding special tokens, since the template prints its
//! own; a text that still begins with two BOS tokens is an error. A control token spelt out in a
//! message becomes that control token, as in transformers; `encode` counts such rows.

use super::generation_tags::{self, BEGIN, END};
use super::jinja::{environment, explain};
use super::jsonl::Message;
use super::named_tokens::read_object;
use super::tokenizer::Tokenizer;
use super::turns::{TurnFrame, Unlocated, locate};
use crate::device::mapped::MappedFile;
use crate::error::{Error, FileKind, Result};
use minijinja::{Environment, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

const NAME: &str = "chat";

/// A compiled chat template. Holding one proves that it is valid Jinja.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    path: PathBuf,
    source: String,
    has_generation_tags: bool,
    /// `bos_token` and the like.
    variables: BTreeMap<&'static str, String>,
    control_tokens: Vec<String>,
    bos: Option<u32>,
    frame: OnceLock<Result<TurnFrame, Unlocated>>,
}

type IdsAndMask = (Vec<u32>, Vec<bool>);

/// Why a conversation cannot be encoded; the caller knows which row it is.
#[derive(Debug)]
pub(super) struct Problem {
    /// Index of the message at fault, if one is.
    pub(super) message: Option<usize>,
    pub(super) expected: &'static str,
    pub(super) got: String,
    pub(super) fix: &'static str,
}

impl ChatTemplate {
    /// Reads the template of a model directory: `chat_template.jinja`, else `chat_template` of
    /// `tokenizer_config.json` (a string, or a list of `{"name", "template"}` with a `default`).
    /// `None` if there is neither.
    ///
    /// `strftime_now` in the template shows the moment of this call, in UTC.
    pub fn load(dir: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = dir.join("chat_template.jinja");
        if path.exists() {
            let file = MappedFile::open(&path)?;
            let source = std::str::from_utf8(file.as_slice()).map_err(|e| {
                let place = format!("byte {}", e.valid_up_to() + 1);
                Error::file(FileKind::Model, &path, place, "UTF-8 text", "another byte", "")
            })?;
            return Self::new(&path, source, tokenizer, now as i64).map(Some);
        }
        let path = dir.join("tokenizer_config.json");
        let config = read_object(dir, "tokenizer_config.json")?;
        let source = match &config["chat_template"] {
            Json::Null => return Ok(None),
            Json::String(source) => source,
            Json::Array(templates) => default_of(&path, templates)?,
            other => return Err(not_a_template(&path, &other.to_string())),
        };
        Self::new(&path, source, tokenizer, now as i64).map(Some)
    }

    /// Compiles `source`, which is said to come from `path`; `clock` (seconds since 1970) is what
    /// `strftime_now` shows.
    pub fn new(path: &Path, source: &str, tokenizer: &Tokenizer, clock: i64) -> Result<Self> {
        let invalid = |got: String| {
            Error::file(FileKind::Model, path, "", "a Jinja template that hooke can run", got, "")
        };
        let (rewritten, has_generation_tags) =
            generation_tags::rewrite(source).map_err(|e| invalid(e.to_owned()))?;
        let mut env = environment(clock);
        env.add_template_owned(NAME, rewritten).map_err(|e| invalid(explain(&e)))?;
        Ok(Self {
            env,
            path: path.into(),
            source: source.into(),
            has_generation_tags,
            variables: tokenizer.named_tokens().clone(),
            control_tokens: tokenizer.special_texts().map(str::to_owned).collect(),
            bos: tokenizer.bos(),
            frame: OnceLock::new(),
        })
    }

    /// The text of a conversation, as `apply_chat_template(tokenize=False)` gives it.
    ///
    /// Errors: what the template itself refuses, or a template that runs for too long.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.run(messages, add_generation_prompt, ["", ""])
            .map_err(|got| self.error(&Problem::refused(None, got)))
    }

    /// Ids of a conversation, and which of them are trained. Both have the same length.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<(Vec<u32>, Vec<bool>)> {
        self.encode_row(tokenizer, messages)?.map_err(|problem| self.error(&problem))
    }

    /// As [`Self::encode`], but complaints about the conversation are returned apart.
    pub(super) fn encode_row(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Result<IdsAndMask, Problem>> {
        let (text, spans) = match self.render_with_spans(messages) {
            Ok(rendered) => rendered,
            Err(problem) => return Ok(Err(problem)),
        };
        let (ids, offsets) = tokenizer.encode_with_offsets(&text)?;
        if let (Some(bos), [first, second, ..]) = (self.bos, &ids[..])
            && [first, second] == [&bos, &bos]
        {
            return Ok(Err(Problem {
                message: None,
                expected: "one BOS token at the start",
                got: "two".into(),
                fix: "remove it from the first message, or from the chat template",
            }));
        }
        let trained = trained_tokens(&offsets, &spans);
        Ok(Ok((ids, trained)))
    }

    fn render_with_spans(
        &self,
        messages: &[Message],
    ) -> Result<(String, Vec<Range<usize>>), Problem> {
        let refused = |got| Problem::refused(None, got);
        let [begin, end] = self.unused_chars(messages);
        if self.has_generation_tags {
            let (begin_text, end_text) = (begin.to_string(), end.to_string());
            let marked = self.run(messages, false, [&begin_text, &end_text]).map_err(refused)?;
            return Ok(extract_spans(&marked, begin, end));
        }
        let text = self.run(messages, false, ["", ""]).map_err(refused)?;
        let render = |messages: &[Message], prompt| self.run(messages, prompt, ["", ""]);
        let control_tokens = self.control_tokens.iter().map(String::as_str);
        let spans = self
            .frame
            .get_or_init(|| TurnFrame::probe(&render, control_tokens.clone(), begin))
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|frame| locate(&render, &text, messages, frame, control_tokens, begin))
            .map_err(|unlocated| Problem {
                message: unlocated.turn,
                expected: "a chat template that prints the assistant's content as it is",
                got: unlocated.got,
                fix: "mark what the assistant says with {% generation %} ... {% endgeneration %} \
                      in the chat template",
            })?;
        Ok((text, spans))
    }

    /// Runs the template; `markers` are printed around generation blocks.
    fn run(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        markers: [&str; 2],
    ) -> Result<String, String> {
        let list: Value = messages
            .iter()
            .map(|message| {
                Value::from_iter([
                    ("role", Value::from(message.role.as_str())),
                    ("content", Value::from(message.content.as_str())),
                ])
            })
            .collect();
        let mut context: BTreeMap<&str, Value> = self
            .variables
            .iter()
            .map(|(name, token)| (*name, Value::from(token.as_str())))
            .collect();
        context.extend([
            ("messages", list),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            (BEGIN, Value::from(markers[0])),
            (END, Value::from(markers[1])),
        ]);
        let template = self.env.get_template(NAME).map_err(|e| explain(&e))?;
        template.render(context).map_err(|e| explain(&e))
    }

    /// Two characters that occur neither in the template nor in the messages nor in a token.
    fn unused_chars(&self, messages: &[Message]) -> [char; 2] {
        let used = |c: char| {
            self.source.contains(c)
                || self.control_tokens.iter().any(|token| token.contains(c))
                || messages.iter().any(|m| m.content.contains(c) || m.role.contains(c))
        };
        // Private use: no tokenizer, script or font gives these a meaning. Only a text with
        // 65,534 different ones would exhaust them; then the markers hide real characters, and
        // the turns are not found, which is an error.
        let mut unused = ('\u{100000}'..='\u{10FFFD}').filter(|&c| !used(c));
        [unused.next().unwrap_or('\u{100000}'), unused.next().unwrap_or('\u{100001}')]
    }

    fn error(&self, problem: &Problem) -> Error {
        let place = problem.message.map_or_else(String::new, |i| format!("`messages[{i}]`"));
        let Problem { expected, got, fix, .. } = problem;
        Error::file(FileKind::Model, &self.path, place, *expected, got, *fix)
    }
}

impl Problem {
    fn refused(message: Option<usize>, got: String) -> Self {
        Self { message, expected: "a conversation that the chat template accepts", got, fix: "" }
    }
}

fn default_of<'a>(path: &Path, templates: &'a [Json]) -> Result<&'a str> {
    let name = |template: &Json| template["name"].as_str().unwrap_or_default().to_owned();
    let default = templates.iter().find(|template| name(template) == "default");
    match default.and_then(|template| template["template"].as_str()) {
        Some(source) => Ok(source),
        None => {
            let names: Vec<String> = templates.iter().map(name).collect();
            let got = format!("templates named {}", names.join(", "));
            Err(not_a_template(path, &got))
        }
    }
}

fn not_a_template(path: &Path, got: &str) -> Error {
    let expected = "a template, or a list of templates with one named default";
    Error::file(FileKind::Model, path, "`chat_template`", expected, got, "")
}

/// Takes the markers out of a text, and returns what lay between them.
fn extract_spans(marked: &str, begin: char, end: char) -> (String, Vec<Range<usize>>) {
    let (mut text, mut spans) = (String::with_capacity(marked.len()), Vec::new());
    let mut open = Vec::new();
    for c in marked.chars() {
        if c == begin {
            open.push(text.len());
        } else if c == end {
            spans.extend(open.pop().map(|start| start..text.len()));
        } else {
            text.push(c);
        }
    }
    spans.sort_by_key(|span| span.start);
    (text, spans)
}

/// Marks the tokens that overlap a span; `spans` is sorted by start.
fn trained_tokens(offsets: &[(usize, usize)], spans: &[Range<usize>]) -> Vec<bool> {
    let mut spans = spans.iter().peekable();
    offsets
        .iter()
        .map(|&(start, end)| {
            while spans.next_if(|span| span.end <= start).is_some() {}
            spans.peek().is_some_and(|span| span.start < end)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{extract_spans, trained_tokens};

    #[test]
    fn markers_are_taken_out_and_what_they_enclosed_is_kept() {
        assert_eq!(extract_spans("a<bé>c<>d", '<', '>'), ("abécd".into(), vec![1..4, 5..5]));
        assert_eq!(extract_spans("<a<b>c>", '<', '>'), ("abc".into(), vec![0..3, 1..2]));
        assert_eq!(extract_spans("none", '<', '>'), ("none".into(), vec![]));
    }

    #[test]
    fn a_token_is_trained_if_it_touches_a_span() {
        let offsets = [(0, 2), (2, 5), (5, 5), (5, 6), (6, 9), (9, 12)];
        let trained = |spans: &[(usize, usize)]| {
            let spans: Vec<_> = spans.iter().map(|&(start, end)| start..end).collect();
            trained_tokens(&offsets, &spans)
        };
        assert_eq!(trained(&[]), [false; 6]);
        assert_eq!(trained(&[(3, 6)]), [false, true, true, true, false, false]);
        assert_eq!(trained(&[(0, 1), (11, 12)]), [true, false, false, false, false, true]);
        assert_eq!(trained(&[(2, 2)]), [false; 6]);
        assert_eq!(trained(&[(0, 12)]), [true; 6]);
    }
}

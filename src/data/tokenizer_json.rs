//! What must hold of `tokenizer.json` before the `tokenizers` crate may see it.
//!
//! The crate panics on some malformed files (a merge whose result is longer than every token, a
//! post-processor that asks for a second sequence, a decoder cut short or stripping too much) and
//! silently does something else on others (an added token whose id is not the next free one gets
//! another id). The checks here turn those into errors, and refuse the parts that no Llama or
//! Qwen tokenizer has: model kinds other than BPE, dropout, prefixes and suffixes of words.

use serde_json::Value;

/// A complaint about one place of the file.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) place: String,
    pub(super) expected: String,
    pub(super) got: String,
}

fn problem<T>(
    place: impl Into<String>,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> Result<T, Problem> {
    Err(Problem { place: place.into(), expected: expected.into(), got: got.into() })
}

/// The ids that the file's post-processor puts around a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) start: Vec<u32>,
    pub(super) end: Vec<u32>,
}

/// What the rest of the program needs to know beyond what the crate tells.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) frame: Frame,
    /// The token that stands for characters outside the vocabulary, if there is one.
    pub(super) unk_token: Option<String>,
    /// Text is turned into byte symbols first, and a byte without a token is dropped.
    pub(super) byte_level: bool,
}

const NORMALIZERS: &[&str] = &[
    "Sequence",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Lowercase",
    "Strip",
    "StripAccents",
    "Prepend",
    "Replace",
];
const PRE_TOKENIZERS: &[&str] = &[
    "Sequence",
    "Split",
    "ByteLevel",
    "Metaspace",
    "Digits",
    "Punctuation",
    "Whitespace",
    "WhitespaceSplit",
];
const POST_PROCESSORS: &[&str] = &["Sequence", "ByteLevel", "TemplateProcessing"];
const DECODERS: &[&str] =
    &["Sequence", "ByteLevel", "Metaspace", "Replace", "Fuse", "Strip", "ByteFallback"];

/// Checks the whole file.
pub(super) fn check(file: &Value) -> Result<Checked, Problem> {
    let model = &file["model"];
    check_model(model)?;
    for_each_part(file, "normalizer", "normalizers", NORMALIZERS, &mut check_normalizer)?;
    let mut byte_level = false;
    for_each_part(file, "pre_tokenizer", "pretokenizers", PRE_TOKENIZERS, &mut |_, part| {
        byte_level |= part["type"] == "ByteLevel";
        Ok(())
    })?;
    for_each_part(file, "decoder", "decoders", DECODERS, &mut check_decoder)?;
    let mut frame = Frame::default();
    for_each_part(file, "post_processor", "processors", POST_PROCESSORS, &mut |place, part| {
        if part["type"] == "TemplateProcessing" {
            extend_frame(&mut frame, place, part)
        } else {
            Ok(())
        }
    })?;
    let unk_token = model["unk_token"].as_str().map(str::to_owned);
    Ok(Checked { frame, unk_token, byte_level })
}

fn check_model(model: &Value) -> Result<(), Problem> {
    if model["type"] != "BPE" {
        return problem("`model.type`", "\"BPE\"", model["type"].to_string());
    }
    if !matches!(model["dropout"].as_f64(), None | Some(0.0)) {
        let got = model["dropout"].to_string();
        return problem("`model.dropout`", "none (the same text must give the same ids)", got);
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if !matches!(model[key].as_str(), None | Some("")) {
            return problem(format!("`model.{key}`"), "none", model[key].to_string());
        }
    }
    let Some(vocab) = model["vocab"].as_object() else {
        return problem("`model.vocab`", "an object from tokens to ids", kind(&model["vocab"]));
    };
    for (token, id) in vocab {
        // i32 is what a batch holds.
        if id.as_u64().is_none_or(|id| id >= i32::MAX as u64) {
            let place = format!("`model.vocab[{token:?}]`");
            return problem(place, "an id below 2147483647", id.to_string());
        }
    }
    if let Some(unk) = model["unk_token"].as_str()
        && !vocab.contains_key(unk)
    {
        return problem("`model.unk_token`", "a token of `model.vocab`", format!("{unk:?}"));
    }
    let Some(merges) = model["merges"].as_array() else {
        return problem("`model.merges`", "an array of pairs", kind(&model["merges"]));
    };
    for (i, merge) in merges.iter().enumerate() {
        let place = || format!("`model.merges[{i}]`");
        let pair = match merge {
            // A version line of a merges.txt, which the crate skips.
            Value::String(line) if line.starts_with("#version") => continue,
            Value::String(line) => line.split_once(' ').filter(|(_, second)| !second.contains(' ')),
            Value::Array(pair) => match &pair[..] {
                [Value::String(first), Value::String(second)] => Some((&first[..], &second[..])),
                _ => None,
            },
            _ => None,
        };
        let Some((first, second)) = pair else {
            return problem(place(), "a pair of tokens", merge.to_string());
        };
        for token in [first, second, &format!("{first}{second}")] {
            if !vocab.contains_key(token) {
                let got = format!("{token:?}, which is not there");
                return problem(place(), "tokens of `model.vocab`", got);
            }
        }
    }
    Ok(())
}

type PartCheck<'a> = &'a mut dyn FnMut(&str, &Value) -> Result<(), Problem>;

/// Visits a component and, if it is a sequence, those inside, in order. Recursion is bounded by
/// the JSON parser, which stops at 128 levels.
fn for_each_part(
    file: &Value,
    key: &str,
    list_key: &str,
    known: &[&str],
    visit: PartCheck<'_>,
) -> Result<(), Problem> {
    match &file[key] {
        Value::Null => Ok(()),
        part => visit_part(&format!("`{key}`"), part, list_key, known, visit),
    }
}

fn visit_part(
    place: &str,
    part: &Value,
    list_key: &str,
    known: &[&str],
    visit: PartCheck<'_>,
) -> Result<(), Problem> {
    let name = part["type"].as_str().unwrap_or_default();
    if !known.contains(&name) {
        let expected = format!("a `type` among {}", known.join(", "));
        return problem(place, expected, part["type"].to_string());
    }
    if name != "Sequence" {
        return visit(place, part);
    }
    let Some(parts) = part[list_key].as_array() else {
        return problem(place, format!("an array `{list_key}`"), kind(&part[list_key]));
    };
    parts.iter().try_for_each(|part| visit_part(place, part, list_key, known, visit))
}

/// The crate indexes past the end of the text when it prepends nothing.
fn check_normalizer(place: &str, part: &Value) -> Result<(), Problem> {
    if part["type"] == "Prepend" && part["prepend"] == "" {
        return problem(place, "something to prepend", "an empty string");
    }
    check_replace(place, part)
}

/// An empty pattern matches between any two characters, for ever in some versions of the crate.
fn check_replace(place: &str, part: &Value) -> Result<(), Problem> {
    if part["type"] == "Replace" && part["pattern"]["String"] == "" {
        return problem(place, "something to replace", "an empty pattern");
    }
    Ok(())
}

/// The crate subtracts past zero when it strips the end of a token shorter than `stop`.
fn check_decoder(place: &str, part: &Value) -> Result<(), Problem> {
    if part["type"] == "Strip" && part["stop"] != 0 {
        return problem(place, "`stop` 0", part["stop"].to_string());
    }
    check_replace(place, part)
}

/// Adds what this template puts before and after the one sequence.
fn extend_frame(frame: &mut Frame, place: &str, part: &Value) -> Result<(), Problem> {
    let Some(pieces) = part["single"].as_array() else {
        return problem(place, "an array `single`", kind(&part["single"]));
    };
    let (mut start, mut end, mut num_sequences) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        if let Some(sequence) = piece.get("Sequence") {
            if sequence["id"] != "A" {
                let got = sequence["id"].to_string();
                return problem(place, "only sequence \"A\" in `single`", got);
            }
            num_sequences += 1;
            continue;
        }
        let name = piece["SpecialToken"]["id"].as_str().unwrap_or_default();
        let special = &part["special_tokens"][name];
        let ids: Option<Vec<u32>> = special["ids"]
            .as_array()
            .and_then(|ids| ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect());
        match ids {
            Some(ids) if num_sequences == 0 => start.extend(ids),
            Some(ids) => end.extend(ids),
            None => {
                let expected = format!("the ids of {name:?} in `special_tokens`");
                return problem(place, expected, special.to_string());
            }
        }
    }
    if num_sequences != 1 {
        return problem(place, "one sequence in `single`", num_sequences.to_string());
    }
    // A later processor wraps what an earlier one made.
    frame.start.splice(0..0, start);
    frame.end.extend(end);
    Ok(())
}

/// Fails if an added token would not get the id the file gives it; `id_of` asks the crate.
pub(super) fn check_added(
    file: &Value,
    id_of: impl Fn(&str) -> Option<u32>,
) -> Result<(), Problem> {
    let Some(tokens) = file["added_tokens"].as_array() else { return Ok(()) };
    for (i, token) in tokens.iter().enumerate() {
        let content = token["content"].as_str().unwrap_or_default();
        let (want, got) = (token["id"].as_u64(), id_of(content).map(u64::from));
        if want != got {
            let place = format!("`added_tokens[{i}]` ({content:?})");
            let expected = "the next free id, or the id that `model.vocab` gives it";
            return problem(place, expected, token["id"].to_string());
        }
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

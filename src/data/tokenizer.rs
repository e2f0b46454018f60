//! Text to ids and back, by the model directory's own `tokenizer.json`.

use super::named_tokens::{malformed, named_tokens, read_object};
use super::tokenizer_json::{self, Checked, Frame};
use crate::device::mapped::MappedFile;
use crate::error::{Error, FileKind, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenizers::AddedToken;

/// Whether the tokens that the tokenizer itself puts around a text are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// As transformers' `add_special_tokens=True`: what the post-processor of `tokenizer.json`
    /// adds. (`add_bos_token` and `add_eos_token` of `tokenizer_config.json` are already in it.)
    Add,
    /// The text alone.
    Omit,
}

/// First byte and end of what each token stands for.
pub(super) type Offsets = Vec<(usize, usize)>;

/// A loaded tokenizer. Holding one proves that every id it can produce fits `i32`, and that the
/// named tokens exist.
///
/// Special tokens that are spelt out in a text become control tokens, as in transformers.
/// Truncation and padding that `tokenizer.json` may ask for are switched off, as transformers does
/// unless told otherwise: hooke's own length policy counts what it cuts.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    frame: Frame,
    named: BTreeMap<&'static str, String>,
    bos: Option<u32>,
    eos: Option<u32>,
    unk: Option<u32>,
    largest_id: u32,
    /// Contents and ids of special tokens, by id.
    special: BTreeMap<u32, String>,
    /// Bytes that have no token and are dropped; all false unless the tokenizer is byte-level.
    missing_bytes: [bool; 256],
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model directory, and the named tokens from
    /// `tokenizer_config.json` and `special_tokens_map.json` if they are there.
    ///
    /// Errors: files that are missing, malformed, or ask for something hooke does not do.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            let fix = "save it with transformers: AutoTokenizer.from_pretrained(...)\
                       .save_pretrained(DIR)";
            let expected = "a Hugging Face tokenizer";
            return Err(Error::file(FileKind::Model, &path, "", expected, "no such file", fix));
        }
        let file = MappedFile::open(&path)?;
        let json: Value =
            serde_json::from_slice(file.as_slice()).map_err(|e| malformed(&path, &e))?;
        let config = read_object(dir, "tokenizer_config.json")?;
        let named = named_tokens(dir, &config, &read_object(dir, "special_tokens_map.json")?)?;

        let at = |p: tokenizer_json::Problem| {
            Error::file(FileKind::Model, &path, p.place, p.expected, p.got, "")
        };
        let refused = |got: String| {
            let expected = "a tokenizer that the tokenizers crate accepts";
            Error::file(FileKind::Model, &path, "", expected, got, "")
        };
        let checked = tokenizer_json::check(&json).map_err(at)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(file.as_slice())
            .map_err(|e| refused(e.to_string()))?;
        tokenizer_json::check_added(&json, |token| inner.token_to_id(token)).map_err(at)?;
        add_tokens_of_config(&mut inner, &dir.join("tokenizer_config.json"), &config)?;
        inner.with_truncation(None).map_err(|e| refused(e.to_string()))?;
        inner.with_padding(None);
        // Kept as `frame`: the crate's own trims blanks from the offsets, which would lose the
        // blanks at the edges of a trained span.
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        Self::new(inner, path, checked, named)
    }

    fn new(
        inner: tokenizers::Tokenizer,
        path: PathBuf,
        checked: Checked,
        named: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        let Checked { frame, unk_token, byte_level } = checked;
        let mut ids = BTreeMap::new();
        for (name, token) in &named {
            match inner.token_to_id(token) {
                Some(id) => ids.insert(*name, id),
                None if !["bos_token", "eos_token"].contains(name) => None,
                None => {
                    let config = path.with_file_name("tokenizer_config.json");
                    let (place, got) = (format!("`{name}`"), format!("{token:?}"));
                    let expected = "a token of tokenizer.json";
                    return Err(Error::file(FileKind::Model, &config, place, expected, got, ""));
                }
            };
        }
        let largest = inner.get_vocab(true).into_values().max();
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special);
        Ok(Self {
            path,
            bos: ids.get("bos_token").copied(),
            eos: ids.get("eos_token").copied(),
            unk: unk_token.and_then(|token| inner.token_to_id(&token)),
            largest_id: frame
                .start
                .iter()
                .chain(&frame.end)
                .copied()
                .chain(largest)
                .max()
                .unwrap_or(0),
            special: special.map(|(&id, token)| (id, token.content.clone())).collect(),
            missing_bytes: missing_bytes(&inner, byte_level),
            named: named.into_iter().collect(),
            frame,
            inner,
        })
    }

    /// Fails unless every id this tokenizer can produce is a row of an embedding with
    /// `vocab_size` rows. (Fewer tokens than rows is normal: Qwen pads its embedding.)
    pub fn check_fits(&self, vocab_size: usize) -> Result<()> {
        if (self.largest_id as usize) < vocab_size {
            return Ok(());
        }
        let token = self.token(self.largest_id).unwrap_or_default();
        Err(Error::file(
            FileKind::Model,
            &self.path,
            "",
            format!("ids below vocab_size {vocab_size} of config.json"),
            format!("id {} for token {token:?}", self.largest_id),
            "use the tokenizer that belongs to the model",
        ))
    }

    /// Ids that a text can have are below this.
    pub fn num_tokens(&self) -> usize {
        self.largest_id as usize + 1
    }

    /// The ids of `text`.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| self.failed(&*e))?;
        match special {
            SpecialTokens::Omit => Ok(encoding.get_ids().to_vec()),
            SpecialTokens::Add => {
                Ok([&self.frame.start, encoding.get_ids(), &self.frame.end].concat())
            }
        }
    }

    /// The ids of `text` alone, and the bytes of `text` each of them stands for. The tokens of one
    /// multi-byte character all carry the whole character.
    pub(super) fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Offsets)> {
        let encoding = self.inner.encode(text, false).map_err(|e| self.failed(&*e))?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    fn failed(&self, error: &(dyn std::error::Error + Send + Sync)) -> Error {
        let expected = "a tokenizer that can encode any text";
        Error::file(FileKind::Model, &self.path, "", expected, error.to_string(), "")
    }

    /// The text of `ids`. Ids without a token (the padding of Qwen's embedding) give nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(|e| self.failed(&*e))
    }

    /// The token that begins a text, if the tokenizer names one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the tokenizer names one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// How `tokenizer.json` spells `id` (with its own symbols for blanks and bytes).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// What goes before a document: what the tokenizer adds itself, and BOS if it has one and
    /// does not add it.
    pub fn document_start(&self) -> Vec<u32> {
        let bos = self.bos.filter(|bos| !self.frame.start.contains(bos));
        bos.into_iter().chain(self.frame.start.iter().copied()).collect()
    }

    /// What goes after a document: what the tokenizer adds itself, and EOS if it has one and
    /// does not add it.
    pub fn document_end(&self) -> Vec<u32> {
        let eos = self.eos.filter(|eos| !self.frame.end.contains(eos));
        self.frame.end.iter().copied().chain(eos).collect()
    }

    /// Whether `id` is a control token rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains_key(&id)
    }

    /// The control tokens as they are spelt in a text.
    pub(super) fn special_texts(&self) -> impl Iterator<Item = &str> {
        self.special.values().map(String::as_str)
    }

    /// `bos_token` and the like, by the names a chat template uses.
    pub(super) fn named_tokens(&self) -> &BTreeMap<&'static str, String> {
        &self.named
    }

    /// Whether `text` holds something that `ids`, made from it, cannot give back: bytes without
    /// a token, which are dropped (as in transformers), or characters that became the unknown
    /// token.
    pub(super) fn is_lossy(&self, text: &str, ids: &[u32]) -> bool {
        text.bytes().any(|byte| self.missing_bytes[usize::from(byte)])
            || self.unk.is_some_and(|unk| ids.contains(&unk))
    }
}

/// Adds tokens that only `tokenizer_config.json` knows, as transformers does when it loads.
fn add_tokens_of_config(
    inner: &mut tokenizers::Tokenizer,
    path: &Path,
    config: &Value,
) -> Result<()> {
    let Some(decoder) = config["added_tokens_decoder"].as_object() else { return Ok(()) };
    let mut tokens: Vec<(Option<u32>, &str, &Value)> = decoder
        .iter()
        .map(|(id, token)| (id.parse().ok(), token["content"].as_str().unwrap_or_default(), token))
        .collect();
    tokens.sort_by_key(|&(id, ..)| id);
    for (id, content, token) in tokens {
        let flag = |name: &str| token[name] == true;
        if inner.token_to_id(content).is_none() && !content.is_empty() {
            let added = AddedToken::from(content, flag("special"))
                .single_word(flag("single_word"))
                .lstrip(flag("lstrip"))
                .rstrip(flag("rstrip"))
                .normalized(flag("normalized"));
            // A failure leaves the token without an id, which is complained about below.
            let _ = inner.add_tokens([added]);
        }
        let got = inner.token_to_id(content);
        if got != id || got.is_none() {
            let id = id.map_or_else(|| "no number".into(), |id| id.to_string());
            let place = format!("`added_tokens_decoder` ({content:?})");
            let expected = "the id that tokenizer.json gives it, or the next free one";
            return Err(Error::file(FileKind::Model, path, place, expected, id, ""));
        }
    }
    Ok(())
}

/// Which bytes no token stands for. SmolLM2's vocabulary, for one, lacks 21.
fn missing_bytes(inner: &tokenizers::Tokenizer, byte_level: bool) -> [bool; 256] {
    let mut missing = [false; 256];
    if byte_level {
        let mut buffer = [0; 4];
        for (byte, symbol) in byte_symbols().into_iter().enumerate() {
            missing[byte] = inner.token_to_id(symbol.encode_utf8(&mut buffer)).is_none();
        }
    }
    missing
}

/// The character that stands for each byte in GPT-2's byte-level vocabularies: printable Latin-1
/// stands for itself, the other 68 bytes for U+0100 and up, in order.
fn byte_symbols() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        }
    })
}

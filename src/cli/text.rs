//! Loading what the text commands share: a model with its tokenizer and template.

use crate::checkpoint::model_dir::ModelDir;
use crate::data::chat::ChatTemplate;
use crate::data::tokenizer::Tokenizer;
use crate::device::Device;
use crate::error::{Error, FileKind, Result};
use crate::model::Model;
use serde::Deserialize;
use std::path::Path;

/// A model directory whose parts have been found to fit each other.
pub(super) struct TextModel {
    pub(super) dir: ModelDir,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<ChatTemplate>,
    /// Tokens that end a text, by `generation_config.json`, `config.json` and the tokenizer.
    pub(super) eos_token_ids: Vec<u32>,
}

impl TextModel {
    /// Reads configuration, tokenizer and template; the weights come later, with [`Self::load`].
    pub(super) fn open(path: &Path) -> Result<Self> {
        let dir = ModelDir::open(path)?;
        let tokenizer = Tokenizer::load(path)?;
        tokenizer.check_fits(dir.config().vocab_size)?;
        let template = ChatTemplate::load(path, &tokenizer)?;
        let mut eos_token_ids = generation_eos_token_ids(path)?;
        eos_token_ids.extend(&dir.config().eos_token_ids);
        eos_token_ids.extend(tokenizer.eos());
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        Ok(Self { dir, tokenizer, template, eos_token_ids })
    }

    /// Loads the weights for computing the first `max_positions` positions.
    pub(super) fn load(&self, device: &Device, max_positions: usize) -> Result<Model> {
        let weights = self.dir.load(device, device.compute_dtype())?;
        Model::new(device, self.dir.config().clone(), weights, max_positions)
    }
}

#[derive(Deserialize)]
struct GenerationConfig {
    #[serde(default)]
    eos_token_id: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

/// `eos_token_id` of `generation_config.json`; none if there is no such file.
fn generation_eos_token_ids(dir: &Path) -> Result<Vec<u32>> {
    let path = dir.join("generation_config.json");
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(Error::io("read", &path))?,
    };
    let config: GenerationConfig = serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        let expected = "a JSON object whose `eos_token_id` is an id or a list of ids";
        Error::file(FileKind::Model, &path, place, expected, error.to_string(), "")
    })?;
    Ok(match config.eos_token_id {
        None => Vec::new(),
        Some(OneOrMore::One(id)) => vec![id],
        Some(OneOrMore::More(ids)) => ids,
    })
}

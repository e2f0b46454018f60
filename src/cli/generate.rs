//! `hooke generate`.

use super::device::DeviceArgs;
use super::text::TextModel;
use super::{print_json, print_line};
use crate::data::jsonl::Message;
use crate::data::tokenizer::{SpecialTokens, Tokenizer};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::generate::{Completion, FinishReason, GenerateConfig, Sampling, generate};
use crate::model::Model;
use serde::Serialize;
use std::path::PathBuf;

/// Prompts continued together.
const BATCH_PROMPTS: usize = 8;
/// Tokens to produce unless told otherwise.
const DEFAULT_MAX_NEW_TOKENS: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Hugging Face directory of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text to continue; may be given several times
    #[arg(long, value_name = "TEXT", required = true)]
    prompt: Vec<String>,
    /// Continue the text itself; without this, it is a user's message for the model's chat
    /// template, if it has one
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct SamplingArgs {
    /// Tokens to produce at the most; by default 256, or as many as the model has positions for
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// 0: always the likeliest token; higher: more varied
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    temperature: f64,
    /// Choose among the fewest likeliest tokens whose probabilities reach this sum
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f64,
    /// Choose among this many likeliest tokens; 0: all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Decides every random choice, together with row and position
    #[arg(long, default_value_t = 42, value_name = "N")]
    seed: u64,
    /// Do not stop at the token that ends a text
    #[arg(long)]
    ignore_eos: bool,
}

#[derive(Serialize)]
struct CompletionJson<'a> {
    prompt: &'a str,
    completion: &'a str,
    completion_ids: &'a [u32],
    finish_reason: FinishReason,
}

pub(super) fn run(args: Args) -> Result<()> {
    args.sampling.check()?;
    args.device.run(|device| run_on(device, &args))
}

fn run_on(device: &Device, args: &Args) -> Result<()> {
    let text_model = TextModel::open(&args.model)?;
    let prompts: Vec<Vec<u32>> = args
        .prompt
        .iter()
        .map(|prompt| encode_prompt(&text_model, prompt, args.raw))
        .collect::<Result<_>>()?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let config = args.sampling.config(&text_model, longest)?;
    let model = text_model.load(device, longest + config.max_new_tokens)?;
    for (batch, first) in prompts.chunks(BATCH_PROMPTS).zip((0..).step_by(BATCH_PROMPTS)) {
        let completions = generate(&model, batch, first as u32, &config)?;
        for (i, completion) in completions.iter().enumerate() {
            let (prompt, ids) = (&args.prompt[first + i], &batch[i]);
            let text = completion_text(&text_model.tokenizer, ids, completion)?;
            print_completion(prompt, &text, completion, args.json)?;
        }
    }
    Ok(())
}

fn encode_prompt(text_model: &TextModel, prompt: &str, raw: bool) -> Result<Vec<u32>> {
    let ids = match &text_model.template {
        Some(template) if !raw => {
            let message = Message { role: "user".into(), content: prompt.into() };
            let text = template.render(&[message], true)?;
            text_model.tokenizer.encode(&text, SpecialTokens::Omit)?
        }
        _ => text_model.tokenizer.encode(prompt, SpecialTokens::Add)?,
    };
    check_prompt("--prompt", prompt, &ids, text_model)?;
    Ok(ids)
}

/// Fails unless there is something to continue, and room for at least one token.
fn check_prompt(option: &str, prompt: &str, ids: &[u32], text_model: &TextModel) -> Result<()> {
    let limit = text_model.dir.config().max_position_embeddings;
    if !ids.is_empty() && ids.len() < limit {
        return Ok(());
    }
    let got = match ids.len() {
        0 => format!("{prompt:?}, which has none"),
        n => format!("{n}"),
    };
    let expected = format!("1 to {} tokens, as the model has {limit} positions", limit - 1);
    Err(Error::Usage { option: option.into(), expected, got })
}

fn print_completion(prompt: &str, text: &str, completion: &Completion, json: bool) -> Result<()> {
    if json {
        return print_json(&CompletionJson {
            prompt,
            completion: text,
            completion_ids: &completion.ids,
            finish_reason: completion.finish_reason,
        });
    }
    print_line(&format!("{prompt}{text}"))
}

/// What the completion adds to the text of the prompt, without special tokens.
///
/// Decoded together with the prompt where that only adds to it: many tokenizers drop the space
/// before the first word of what they decode.
fn completion_text(
    tokenizer: &Tokenizer,
    prompt: &[u32],
    completion: &Completion,
) -> Result<String> {
    let before = tokenizer.decode(prompt, true)?;
    let all = tokenizer.decode(&[prompt, &completion.ids].concat(), true)?;
    match all.strip_prefix(&before) {
        Some(added) => Ok(added.to_string()),
        None => tokenizer.decode(&completion.ids, true),
    }
}

/// The ids of texts for [`greedy_samples`].
pub(super) fn encode_samples(text_model: &TextModel, prompts: &[String]) -> Result<Vec<Vec<u32>>> {
    let encode = |prompt: &String| {
        let ids = text_model.tokenizer.encode(prompt, SpecialTokens::Add)?;
        check_prompt("--sample-prompt", prompt, &ids, text_model)?;
        Ok(ids)
    };
    prompts.iter().map(encode).collect()
}

/// Greedy continuation of raw text, for showing what training changed. Shorter than
/// `max_new_tokens` where the model has no more positions.
pub(super) fn greedy_samples(
    text_model: &TextModel,
    model: &Model,
    ids: &[Vec<u32>],
    max_new_tokens: usize,
) -> Result<Vec<String>> {
    let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
    let config = GenerateConfig {
        max_new_tokens: max_new_tokens.min(model.max_positions().saturating_sub(longest)),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 },
        eos_token_ids: text_model.eos_token_ids.clone(),
        num_tokens: text_model.tokenizer.num_tokens(),
    };
    let completions = generate(model, ids, 0, &config)?;
    let texts = ids.iter().zip(&completions);
    texts.map(|(ids, done)| completion_text(&text_model.tokenizer, ids, done)).collect()
}

impl SamplingArgs {
    fn check(&self) -> Result<()> {
        let usage = |option: &str, expected: &str, got: f64| Error::Usage {
            option: option.into(),
            expected: expected.into(),
            got: got.to_string(),
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(usage("--temperature", "a number of 0 or more", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(usage("--top-p", "more than 0, at most 1", self.top_p));
        }
        Ok(())
    }

    /// Settings for prompts of up to `longest` tokens.
    fn config(&self, text_model: &TextModel, longest: usize) -> Result<GenerateConfig> {
        let limit = text_model.dir.config().max_position_embeddings;
        let room = limit.saturating_sub(longest);
        let max_new_tokens = self.max_new_tokens.unwrap_or(room.min(DEFAULT_MAX_NEW_TOKENS));
        if max_new_tokens > room {
            return Err(Error::Usage {
                option: "--max-new-tokens".into(),
                expected: format!(
                    "at most {room}, as the model has {limit} positions and the longest prompt \
                     takes {longest}"
                ),
                got: max_new_tokens.to_string(),
            });
        }
        Ok(GenerateConfig {
            max_new_tokens,
            sampling: Sampling {
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k,
                seed: self.seed,
            },
            eos_token_ids: if self.ignore_eos {
                Vec::new()
            } else {
                text_model.eos_token_ids.clone()
            },
            num_tokens: text_model.tokenizer.num_tokens(),
        })
    }
}

//! `hooke eval`.

use super::device::DeviceArgs;
use super::text::TextModel;
use super::{print_json, print_line};
use crate::data::jsonl::read_rows;
use crate::device::Device;
use crate::error::Result;
use crate::eval::{ScoredRow, encode, evaluate};
use serde::Serialize;
use std::path::PathBuf;

/// Tokens computed together; more brings no speed on a CPU and costs memory.
pub(super) const BATCH_TOKENS: usize = 2048;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Hugging Face directory of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// JSONL file with rows {"text"}, {"prompt","completion"} or {"messages"}
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    /// Also print a row per document with the negative log-likelihood of every token but the first
    #[arg(long)]
    per_token: bool,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

/// One document: `nll[j]` belongs to `ids[j + 1]`.
#[derive(Serialize)]
struct RowJson<'a> {
    row: usize,
    ids: &'a [u32],
    nll: &'a [f64],
    /// Index in `ids` of the first token that the totals count.
    scored_from: Option<usize>,
}

pub(super) fn run(args: Args) -> Result<()> {
    args.device.run(|device| run_on(device, &args))
}

fn run_on(device: &Device, args: &Args) -> Result<()> {
    let text_model = TextModel::open(&args.model)?;
    let rows = read_rows(&args.data)?;
    let max_tokens = text_model.dir.config().max_position_embeddings;
    let TextModel { tokenizer, template, .. } = &text_model;
    let rows = encode(&args.data, &rows, tokenizer, template.as_ref(), max_tokens)?;
    let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(1);
    let model = text_model.load(device, longest)?;
    let totals = evaluate(&model, &rows, BATCH_TOKENS, |index, row, nll| match args.per_token {
        true => print_row(index, row, nll, args.json, &text_model),
        false => Ok(()),
    })?;
    if args.json {
        return print_json(&totals);
    }
    print_line(&format!(
        "{} rows, {} tokens, {} bytes, nll {:.6} nats\n\
         {:.4} nats/token, {:.4} bits/token, {:.4} bits/byte",
        totals.rows,
        totals.tokens,
        totals.bytes,
        totals.nll,
        totals.loss(),
        totals.bits_per_token(),
        totals.bits_per_byte()
    ))
}

fn print_row(
    row: usize,
    scored: &ScoredRow,
    nll: &[f64],
    json: bool,
    text_model: &TextModel,
) -> Result<()> {
    if json {
        let scored_from = scored.scored.iter().position(|&s| s);
        return print_json(&RowJson { row, ids: &scored.ids, nll, scored_from });
    }
    for (j, nll) in nll.iter().enumerate() {
        let id = scored.ids[j + 1];
        let token = text_model.tokenizer.token(id).unwrap_or_default();
        let counted = if scored.scored[j + 1] { "" } else { "  (not counted)" };
        print_line(&format!("{row:>5} {:>5} {id:>7} {nll:>10.5}  {token}{counted}", j + 1))?;
    }
    Ok(())
}

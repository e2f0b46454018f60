//! `hooke validate`.

use super::device::DeviceArgs;
use super::{print_json, print_line};
use crate::checkpoint::model_dir::ModelDir;
use crate::checkpoint::reference::Reference;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, FileKind, Result};
use crate::model::Model;
use crate::validate::{Row, validate_model};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Hidden states, logits, losses, every gradient and an AdamW run, against tools/golden.py
    Model(ModelArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// Hugging Face directory of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Reference file that tools/golden.py wrote for it
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    /// Element type of weights and activations; by default that of the device
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<ComputeType>,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ComputeType {
    /// Single precision: compared tightly.
    #[value(name = "f32")]
    F32,
    /// What a GPU trains in: compared within its rounding.
    #[value(name = "bf16")]
    BF16,
}

pub(super) fn run(command: Command) -> Result<()> {
    let Command::Model(args) = command;
    args.device.run(|device| run_on(device, &args))
}

fn run_on(device: &Device, args: &ModelArgs) -> Result<()> {
    let dir = ModelDir::open(&args.model)?;
    let reference = Reference::open(&args.reference)?;
    check_fits(&reference, &dir)?;
    let dtype = match args.dtype {
        None => device.compute_dtype(),
        Some(ComputeType::F32) => DType::F32,
        Some(ComputeType::BF16) => DType::BF16,
    };
    let weights = dir.load(device, dtype)?;
    let max_positions = reference.tokens().len();
    let model = Model::new(device, dir.config().clone(), weights, max_positions)?;
    let rows = validate_model(model, &reference)?;
    print_rows(&rows, args.json)?;
    let failed = rows.iter().filter(|row| !row.passed).count();
    if failed > 0 || rows.is_empty() {
        return Err(Error::Validation { failed, total: rows.len() });
    }
    super::note(&format!("all {} tensors are within their tolerance", rows.len()));
    Ok(())
}

/// The reference was made for another model if it has ids, layers or parameters that this one
/// lacks. (What only the model has is missed when it is compared.)
fn check_fits(reference: &Reference, dir: &ModelDir) -> Result<()> {
    let wrong = |place: &str, expected: String, got: String| {
        let fix = "give the reference that was made for this model";
        Err(Error::file(FileKind::Model, reference.path(), place, expected, got, fix))
    };
    let (vocab_size, num_layers) = (dir.config().vocab_size, dir.config().num_layers);
    let ids = reference.tokens().iter().chain(reference.targets());
    if let Some(&largest) = ids.max().filter(|&&id| id as usize >= vocab_size) {
        let expected = format!("ids below vocab_size {vocab_size} of the model");
        return wrong("`tokens`", expected, largest.to_string());
    }
    if reference.num_layers() != num_layers {
        let expected = format!("the {num_layers} layers of the model");
        return wrong("`hidden/`", expected, reference.num_layers().to_string());
    }
    for prefix in ["grad/", "weight/"] {
        if let Some(name) = reference.names(prefix).find(|name| dir.layout().get(name).is_none()) {
            let expected = "parameters of the model".into();
            return wrong(&format!("`{prefix}`"), expected, format!("`{name}`"));
        }
    }
    Ok(())
}

fn print_rows(rows: &[Row], json: bool) -> Result<()> {
    if json {
        return rows.iter().try_for_each(print_json);
    }
    // The name last: it alone varies in length, and a narrow terminal then breaks nothing else.
    print_line(&format!(
        "verdict  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>5}  tensor",
        "max abs", "max rel", "norm rel", "1-cosine", "worst at", "bound"
    ))?;
    for row in rows {
        print_line(&format!(
            "{:<7}  {:>8.1e}  {:>8.1e}  {:>8.1e}  {:>8.1e}  {:>8}  {:>5.0e}  {}",
            if row.passed { "ok" } else { "FAILED" },
            row.max_abs,
            row.max_rel,
            row.norm_rel,
            1.0 - row.cosine,
            row.worst_index,
            row.tolerance,
            row.name
        ))?;
    }
    Ok(())
}

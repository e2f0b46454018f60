//! The command line: what was typed, checked and turned into calls of the library.
//!
//! Results go to stdout, everything else to stderr.

mod device;
mod doctor;
mod eval;
mod finetune;
mod generate;
mod plan;
mod probe;
mod text;
mod validate;

use crate::error::{Error, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// A trainer for Llama/Qwen transformers, and a laboratory for the elasticity of language models.
#[derive(Debug, Parser)]
#[command(name = "hooke", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads to compute with; all cores by default. Results do not depend on it
    #[arg(long, global = true, env = "HOOKE_THREADS", value_name = "N", display_order = 900,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fine-tune a model on rows of text, prompts with completions, or conversations
    Finetune(finetune::Args),
    /// Measure how likely a model finds given text: nats per token, bits per token and per byte
    Eval(eval::Args),
    /// Continue prompts
    Generate(generate::Args),
    /// Print the memory that fine-tuning takes on a GPU, without one
    Plan(plan::Args),
    /// Report what this binary and this machine can do; runs kernels of every kind on the GPU
    Doctor(doctor::Args),
    /// Hold numbers against a reference
    #[command(subcommand)]
    Validate(validate::Command),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    if let Err(error) = check_processor() {
        return fail(&error);
    }
    let parsed = Cli::from_arg_matches(&command().get_matches());
    match run(parsed.unwrap_or_else(|error| error.exit())) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has had enough of it: not a failure worth a message.
        Err(Error::Io { action: "write", source, .. })
            if source.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

/// The grammar. `--learning-rate -1` is a bad value of a known option, not an unknown option.
fn command() -> clap::Command {
    let negative_numbers = |arg: clap::Arg| {
        let takes_values = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_values)
    };
    Cli::command().mut_subcommands(move |command| command.mut_args(negative_numbers))
}

fn run(cli: Cli) -> Result<()> {
    if let Some(threads) = cli.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads as usize);
        pool.build_global().map_err(|error| Error::Device { problem: error.to_string() })?;
    }
    // On a thread of the pool, so that an operator's loop starts here at once instead of waking
    // the pool and sleeping until it is done.
    rayon::scope(|_| match cli.command {
        Command::Finetune(args) => finetune::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Validate(command) => validate::run(command),
    })
}

fn fail(error: &Error) -> ExitCode {
    note(&format!("error: {error}"));
    ExitCode::from(error.exit_code())
}

/// Tells the user something that is not a result. If nobody listens any more, the work goes on
/// all the same (`eprintln!` would panic).
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints one line of results.
fn print_line(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(Error::io("write", "stdout".as_ref()))
}

/// Prints one JSON object of results.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let line = serde_json::to_string(value).map_err(std::io::Error::other);
    print_line(&line.map_err(Error::io("write", "stdout".as_ref()))?)
}

/// The compiler was told to use AVX2 and FMA; without them the first loop would be an illegal
/// instruction instead of this sentence.
fn check_processor() -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    {
        // Read from the processor itself: `is_x86_feature_detected!` answers at compile time for
        // features that the compiler may assume.
        let leaf1 = std::arch::x86_64::__cpuid(1);
        let leaf7 = std::arch::x86_64::__cpuid_count(7, 0);
        let (fma, avx2) = (leaf1.ecx >> 12 & 1, leaf7.ebx >> 5 & 1);
        if fma == 0 || avx2 == 0 {
            return Err(Error::Device {
                problem: "this processor lacks AVX2 or FMA (made before 2013?)\n  \
                          fix: build with RUSTFLAGS='-C target-cpu=native'"
                    .into(),
            });
        }
    }
    Ok(())
}

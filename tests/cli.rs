//! The command line as a user meets it: every command's output, and where it goes.

mod eval;
mod finetune;
mod finetune_rows;
mod generate;
mod streams;
mod validate;

use crate::support::command::hooke;

#[test]
fn version_and_help_go_to_stdout_and_fit_80_columns() {
    let version = hooke(&["--version"]).ok();
    assert_eq!(version.stdout, format!("hooke {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(version.stderr, "");
    for command in ["", "finetune", "eval", "generate", "validate", "validate model"] {
        for flag in ["--help", "-h"] {
            let mut args: Vec<&str> = command.split_whitespace().collect();
            args.push(flag);
            let help = hooke(&args).ok();
            assert!(help.stdout.contains("Usage: hooke"), "{command}: {}", help.stdout);
            assert_eq!(help.stderr, "", "{command}");
            let widest = help.stdout.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= 80, "{command}: {widest} columns");
        }
    }
}

#[test]
fn finetune_has_the_options_of_hugging_face_under_their_names() {
    let help = hooke(&["finetune", "-h"]).ok().stdout;
    for option in [
        "model",
        "train",
        "output-dir",
        "num-train-epochs",
        "max-steps",
        "per-device-train-batch-size",
        "gradient-accumulation-steps",
        "learning-rate",
        "lr-scheduler-type",
        "warmup-steps",
        "weight-decay",
        "adam-beta1",
        "adam-beta2",
        "adam-epsilon",
        "max-grad-norm",
        "max-seq-length",
        "seed",
        "logging-steps",
        "overlong",
    ] {
        assert!(help.contains(&format!("--{option} <")), "--{option} in {help}");
    }
    let words: Vec<&str> = help.split_whitespace().collect();
    let words = words.join(" ");
    for value in ["constant, linear, cosine", "drop, truncate, error"] {
        assert!(words.contains(value), "{value} in {help}");
    }
}

#[test]
fn no_command_at_all_shows_the_help_on_stderr_and_fails() {
    let ran = hooke::<&str>(&[]);
    assert_eq!((ran.code, &*ran.stdout), (Some(2), ""));
    assert!(ran.stderr.contains("Usage: hooke"), "{}", ran.stderr);
}

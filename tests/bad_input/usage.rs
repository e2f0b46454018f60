//! Options: exit 2, and nothing is read.

use super::Bench;
use crate::support::command::{arg, hooke};
use crate::support::embedded_model;

#[test]
fn values_that_no_run_can_use_are_refused_by_option() {
    let bench = Bench::new();
    for (option, value, expected) in [
        ("--learning-rate", "-1", "0 or more"),
        ("--learning-rate", "NaN", "0 or more"),
        ("--learning-rate", "inf", "0 or more"),
        ("--learning-rate", "fast", "invalid float literal"),
        ("--num-train-epochs", "0", "more than 0"),
        ("--num-train-epochs", "-2", "more than 0"),
        ("--num-train-epochs", "1e10", "more than 0, at most 1e9"),
        ("--max-steps", "0", "not in 1.."),
        ("--max-steps", "-1", "'--max-steps <N>'"),
        ("--max-steps", "18446744073709551616", "'--max-steps <N>'"),
        ("--max-steps", "18446744073709551615", "--max-steps: expected at most"),
        ("--per-device-train-batch-size", "0", "1 or more"),
        ("--per-device-train-batch-size", "1.5", "invalid digit"),
        ("--gradient-accumulation-steps", "0", "1 or more"),
        ("--lr-scheduler-type", "polynomial", "constant, linear, cosine"),
        ("--warmup-steps", "-3", "'--warmup-steps <N>'"),
        ("--weight-decay", "-0.1", "0 or more"),
        ("--adam-beta1", "1", "below 1"),
        ("--adam-beta2", "-0.5", "below 1"),
        ("--adam-epsilon", "0", "more than 0"),
        ("--max-grad-norm", "-1", "0 or more"),
        ("--max-seq-length", "1", "2 to 128 (max_position_embeddings of the model)"),
        ("--max-seq-length", "129", "2 to 128 (max_position_embeddings of the model)"),
        ("--overlong", "ignore", "drop, truncate, error"),
        ("--seed", "-1", "'--seed <N>'"),
        ("--logging-steps", "0", "not in 1.."),
        ("--threads", "0", "not in 1..=1024"),
    ] {
        // The number as Rust prints it.
        let shown = if value == "1e10" { "10000000000" } else { value };
        bench.refuses(&[option, value], 2, &[option, shown, expected]);
    }
}

#[test]
fn names_that_do_not_exist_are_refused_with_the_one_that_was_meant() {
    for (args, part) in [
        (&["finetun"][..], "'finetune'"),
        (&["eval", "--modle", "x"], "'--model'"),
        (&["finetune", "--learning_rate", "1"], "'--learning-rate'"),
        (&["generate", "--top_k", "1"], "'--top-k'"),
        (&["validate", "models"], "'model'"),
        (&["eval", "--data", "x"], "--model <DIR>"),
        (&["eval", "--model"], "value is required"),
        (&["eval", "--model", "x", "--data", "y", "z"], "unexpected argument 'z'"),
        (&["eval", "--model", "x", "--model", "y", "--data", "z"], "cannot be used multiple times"),
    ] {
        assert_eq!(hooke(args).failed(2, &[part]).stdout, "");
    }
}

#[test]
fn prompts_and_sampling_settings_that_cannot_work_are_refused() {
    let model = arg(&embedded_model());
    let long = "Alice ".repeat(200);
    for (flags, parts) in [
        (&["--prompt", ""][..], ["--prompt: expected 1 to 127 tokens", "which has none"]),
        (&["--prompt", &long], ["--prompt: expected 1 to 127 tokens", "128 positions"]),
        (&["--prompt", "a", "--temperature", "-1"], ["--temperature", "0 or more"]),
        (&["--prompt", "a", "--temperature", "inf"], ["--temperature", "0 or more"]),
        (&["--prompt", "a", "--top-p", "0"], ["--top-p", "more than 0, at most 1"]),
        (&["--prompt", "a", "--top-p", "1.1"], ["--top-p", "more than 0, at most 1"]),
        (&["--prompt", "a", "--top-k", "-1"], ["'--top-k <K>'", "-1"]),
        (&["--prompt", "a", "--max-new-tokens", "128"], ["--max-new-tokens", "at most 127"]),
        (
            &["--prompt", "a", "--max-new-tokens", "18446744073709551615"],
            ["--max-new-tokens", "at most 127"],
        ),
    ] {
        let args = [&["generate", "--raw", "--model", &model][..], flags].concat();
        assert_eq!(hooke(&args).failed(2, &parts).stdout, "");
    }
    let bench = Bench::new();
    bench.refuses(&["--sample-prompt", ""], 2, &["--sample-prompt", "1 to 127 tokens"]);
    bench.refuses(&["--sample-prompt", &long], 2, &["--sample-prompt", "1 to 127 tokens"]);
}

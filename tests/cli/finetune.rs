//! `hooke finetune` on the embedded model and the shipped rows.

use crate::support::command::{arg, hooke, json_lines, keys, listing};
use crate::support::model_files::{chat_model, write_rows};
use crate::support::{data, embedded_model};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Arguments for the embedded model on the shipped snippets; later ones win nothing, so each test
/// adds what is not here.
fn args(output: &Path, more: &[&str]) -> Vec<String> {
    let (model, train) = (arg(&embedded_model()), arg(&data("movie-snippets/train.jsonl")));
    let output = arg(output);
    let all = ["finetune", "--model", &model, "--train", &train, "--output-dir", &output];
    all.iter().chain(more).map(|arg| arg.to_string()).collect()
}

fn metrics(output: &Path) -> Vec<Value> {
    json_lines(&fs::read_to_string(output.join("metrics.jsonl")).unwrap())
}

/// bits_per_byte of `hooke eval`.
fn bits_per_byte(model: &Path, data: &Path) -> f64 {
    let (model, data) = (arg(model), arg(data));
    let ran = hooke(&["eval", "--model", &model, "--data", &data, "--json"]).ok();
    ran.json()[0]["bits_per_byte"].as_f64().unwrap()
}

#[test]
fn a_run_leaves_metrics_and_a_model_that_does_better_on_held_out_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (output, heldout) = (dir.path().join("runs/one"), dir.path().join("heldout.jsonl"));
    let text = fs::read_to_string(data("movie-snippets/heldout.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().take(40).collect();
    fs::write(&heldout, lines.join("\n")).unwrap();
    let held = arg(&heldout);
    let mut flags = vec!["--max-steps", "12", "--learning-rate", "1e-3", "--eval", &held];
    flags.extend(["--per-device-train-batch-size", "4", "--gradient-accumulation-steps", "2"]);
    flags.extend(["--sample-prompt", "The film", "--logging-steps", "5", "--warmup-steps", "3"]);
    let ran = hooke(&args(&output, &flags)).ok();

    let rows = metrics(&output);
    assert_eq!(rows.len(), 12);
    for (i, row) in rows.iter().enumerate() {
        let want = [
            "step",
            "loss",
            "grad_norm",
            "learning_rate",
            "input_tokens",
            "trained_tokens",
            "tokens_per_s",
        ];
        assert_eq!(keys(row), want);
        assert_eq!(row["step"], i + 1);
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(number("loss") > 0.0 && number("grad_norm") > 0.0 && number("tokens_per_s") > 0.0);
        // Eight rows of text: every token is trained but the first of each.
        assert_eq!(number("trained_tokens") + 8.0, number("input_tokens"));
        // transformers: a linear rise over 3 steps from 0, then a linear fall to 0 at step 13.
        let factor = if i < 3 { i as f64 / 3.0 } else { (12 - i) as f64 / 9.0 };
        assert!((number("learning_rate") - 1e-3 * factor).abs() < 1e-18, "{row}");
    }

    assert_eq!(listing(&output), ["metrics.jsonl", "model"], "nothing else");
    assert_eq!(listing(&output.join("model")), listing(&embedded_model()));
    let (before, after) = (
        bits_per_byte(&embedded_model(), &heldout),
        bits_per_byte(&output.join("model"), &heldout),
    );
    assert!(after < before - 0.05, "{after} after {before}");
    let out: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(out[0].split(" (").next(), Some("held-out rows: 40"));
    assert!(out[1].ends_with(&format!("bits/byte {before:.4}")), "{} for {before}", out[1]);
    assert!(out[2].starts_with("  after   loss "), "{}", out[2]);
    assert_eq!(out[3], "\"The film\"");
    assert!(out[4].starts_with("  before  \"") && out[5].starts_with("  after   \""));
    assert_ne!(out[4][10..], out[5][10..], "the sample changed");
    assert_eq!(out[6..], [format!("model: {}", output.join("model").display())]);

    let first_step = ran.stderr.find("step ").unwrap();
    let counts = ran.stderr.find("rows      2,000 read, 2,000 used").unwrap();
    assert!(counts < first_step, "{}", ran.stderr);
    let shown = ran.stderr.lines().filter(|line| line.starts_with("step ")).count();
    assert_eq!(shown, 4, "steps 1, 5, 10 and 12: {}", ran.stderr);
    assert!(ran.stderr.lines().all(|line| line.len() <= 80), "{}", ran.stderr);
}

#[test]
fn two_runs_are_equal_bit_by_bit_with_one_thread_or_two() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, more: &[&str]| {
        let output = dir.path().join(name);
        let mut flags = vec!["--max-steps", "3", "--learning-rate", "1e-3"];
        flags.extend(["--lr-scheduler-type", "cosine", "--per-device-train-batch-size", "3"]);
        flags.extend(more);
        hooke(&args(&output, &flags)).ok();
        let mut rows = metrics(&output);
        for row in &mut rows {
            row.as_object_mut().unwrap().remove("tokens_per_s");
        }
        (rows, fs::read(output.join("model/model.safetensors")).unwrap())
    };
    let one = run("one", &["--threads", "1"]);
    assert!(one == run("two", &["--threads", "2"]), "other threads, other bits");
    assert!(one == run("three", &["--threads", "2"]), "not even the same twice");
    assert!(one.1 != run("seed", &["--threads", "2", "--seed", "43"]).1, "the seed counts");
}

#[test]
fn a_learning_rate_of_zero_gives_back_the_model_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    // An empty directory that exists may be a mount point: it is used, not replaced.
    let output = dir.path().join("run");
    fs::create_dir(&output).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&output);
    let flags = ["--max-steps", "2", "--learning-rate", "0", "--weight-decay", "0.1"];
    hooke(&args(&output, &flags)).ok();
    assert_eq!(inode(&output), before);
    for name in listing(&embedded_model()) {
        let read = |dir: &Path| fs::read(dir.join(&name)).unwrap();
        assert!(read(&embedded_model()) == read(&output.join("model")), "{name} differs");
    }
}

#[test]
fn a_trained_model_trains_on_and_saves_what_was_measured() {
    // F32 weights, so the saved model is the measured one.
    let (model, dir) = (chat_model("qwen"), tempfile::tempdir().unwrap());
    let rows = dir.path().join("rows.jsonl");
    write_rows(&rows, &[json!({"text": "Emma was clever."}), json!({"text": "Who was Emma?"})]);
    let rows_arg = arg(&rows);
    let mut from = model.path().to_path_buf();
    for round in ["one", "two"] {
        let output = dir.path().join(round);
        let (model, out) = (arg(&from), arg(&output));
        let mut args = vec!["finetune", "--model", &model, "--train", &rows_arg, "--eval"];
        args.extend([&*rows_arg, "--output-dir", &out, "--learning-rate", "1e-2"]);
        // Rows end early, samples need not.
        args.extend(["--num-train-epochs", "2.5", "--max-seq-length", "24"]);
        args.extend(["--sample-prompt", "Emma"]);
        let ran = hooke(&args).ok();
        assert_eq!(metrics(&output).len(), 3, "two and a half epochs of one step");
        let lines: Vec<&str> = ran.stdout.lines().collect();
        for (line, model) in [(lines[1], &from), (lines[2], &output.join("model"))] {
            let want = format!("bits/byte {:.4}", bits_per_byte(model, &rows));
            assert!(line.ends_with(&want), "{line} for {want}");
        }
        for (line, model) in [(lines[4], &from), (lines[5], &output.join("model"))] {
            let model = arg(model);
            let args = ["generate", "--model", &model, "--prompt", "Emma", "--raw", "--json"];
            let ran = hooke(&[&args[..], &["--max-new-tokens", "40"]].concat()).ok();
            let want = ran.json()[0]["completion"].as_str().unwrap().to_string();
            assert!(!want.is_empty() && line.ends_with(&format!("  {want:?}")), "{line}: {want:?}");
        }
        from = output.join("model");
    }
}

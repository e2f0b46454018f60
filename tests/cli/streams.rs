//! Streams, threads and repetition, whatever the command.

use crate::support::command::{arg, command, finish, hooke};
use crate::support::model_files::{change_tensor, chat_model, write_rows};
use crate::support::{data, embedded_model};
use hooke::data::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn eval_args(data_file: &str) -> Vec<String> {
    let (model, data) = (arg(&embedded_model()), arg(&data(data_file)));
    let args = ["eval", "--model", &model, "--data", &data, "--per-token", "--json"];
    args.map(String::from).to_vec()
}

/// A finetune of one step, and where it writes.
fn finetune_args(output: &std::path::Path) -> Vec<String> {
    let (model, train) = (arg(&embedded_model()), arg(&data("movie-snippets/train.jsonl")));
    let mut args = vec!["finetune", "--model", &model, "--train", &train, "--max-steps", "2"];
    let output = arg(output);
    args.extend(["--per-device-train-batch-size", "2", "--output-dir", &output]);
    args.into_iter().map(String::from).collect()
}

#[test]
fn results_are_the_same_bytes_with_any_number_of_threads_and_every_time() {
    let bytes = |threads: &str| {
        let mut args = eval_args("movie-snippets/heldout.jsonl");
        args.extend(["--threads".into(), threads.into()]);
        hooke(&args).ok().stdout
    };
    let one = bytes("1");
    assert!(one.lines().count() > 100);
    assert_eq!(one, bytes("2"));
    assert_eq!(one, bytes("2"), "again");
    assert_eq!(one, bytes("3"), "more threads than cores, perhaps");
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let mut child = command(&eval_args("movie-snippets/heldout.jsonl"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"row\":0,"), "{line}");
    let ran = finish(child.wait_with_output().unwrap());
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
}

#[test]
fn nothing_more_is_computed_once_the_reader_is_gone() {
    // Only "!" gives queries and keys a part of 10^25, whose product is beyond f32: whoever gets
    // as far as the last row, in the second batch, fails with exit 6.
    let model = chat_model("qwen");
    let tokenizer = Tokenizer::load(model.path()).unwrap();
    let poison = tokenizer.encode("!", SpecialTokens::Omit).unwrap()[0] as usize;
    let weights = model.path().join("model.safetensors");
    let first_column = |name: &str, value: &dyn Fn(usize) -> f32| {
        change_tensor(&weights, name, |bytes| {
            for (row, bytes) in bytes.chunks_exact_mut(16 * 4).enumerate() {
                bytes[..4].copy_from_slice(&value(row).to_le_bytes());
            }
        });
    };
    first_column("model.embed_tokens.weight", &|id| if id == poison { 1.0 } else { 0.0 });
    for name in ["q_proj", "k_proj"] {
        first_column(&format!("model.layers.0.self_attn.{name}.weight"), &|_| 1e25);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    let mut rows = vec![json!({"text": "xq".repeat(100)}); 12];
    rows.push(json!({"text": "Emma! Who?"}));
    write_rows(&file, &rows);
    let (model, file) = (arg(model.path()), arg(&file));
    let args = ["eval", "--model", &model, "--data", &file, "--per-token", "--json"];
    hooke(&args).failed(6, &["line 13", "NaN"]);

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = finish(command(&args).stdout(writer).stderr(Stdio::piped()).output().unwrap());
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
}

#[test]
fn training_goes_on_when_nobody_reads_its_messages() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let mut child = command(&finetune_args(&output)).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(output.join("model/model.safetensors").is_file());
    // Nor does a full terminal log stop it.
    let output = dir.path().join("again");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = command(&finetune_args(&output)).stderr(Stdio::from(full)).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let full = |args: &[String]| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        finish(command(args).stdout(Stdio::from(full)).stderr(Stdio::piped()).output().unwrap())
    };
    let parts = ["cannot write stdout", "No space left on device"];
    full(&eval_args("movie-snippets/heldout.jsonl")).failed(7, &parts);
    let model = arg(&embedded_model());
    let generate = ["generate", "--model", &model, "--prompt", "Alice", "--max-new-tokens", "1"];
    full(&generate.map(String::from)).failed(7, &parts);
    // The run is on disk before its last line is printed.
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    full(&finetune_args(&output)).failed(7, &parts);
    assert!(output.join("model/model.safetensors").is_file());
}

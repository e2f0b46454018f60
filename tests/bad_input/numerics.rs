//! Numbers beyond all bounds: exit 6, and no model.

use super::Bench;
use crate::support::command::{arg, hooke, json_lines, listing};
use crate::support::embedded_model;
use crate::support::model_files::{change_tensor, chat_model, write_model};
use serde_json::json;
use std::fs;

#[test]
fn a_run_that_diverges_stops_with_its_good_rows_and_no_model() {
    let bench = Bench::new();
    let flags = ["--learning-rate", "1e30", "--max-steps", "5", "--sample-prompt", "Alice"];
    let ran = bench.finetune(&embedded_model(), &flags);
    let ran = ran.failed(6, &["step 2: ", " is NaN", "before the update", "fix: "]);
    assert_eq!(ran.stdout, "");
    assert_eq!(listing(&bench.output()), ["metrics.jsonl"], "no model, no temporary");
    let rows = json_lines(&fs::read_to_string(bench.output().join("metrics.jsonl")).unwrap());
    assert_eq!(rows.len(), 1, "step 1 was good: {rows:?}");
    assert!(rows[0]["loss"].is_f64() && rows[0]["grad_norm"].is_f64(), "{rows:?}");
}

#[test]
fn a_weight_that_its_file_cannot_hold_is_not_saved() {
    // One step of 10^30: the next would be stopped, the file of F16 is all that can notice now.
    let bench = Bench::new();
    let ran = bench.finetune(&embedded_model(), &["--learning-rate", "1e30", "--max-steps", "1"]);
    ran.failed(6, &["`model.embed_tokens.weight`, element ", "more than F16 can hold", "fix: "]);
    assert_eq!(listing(&bench.output()), ["metrics.jsonl"]);
}

#[test]
fn a_model_that_overflows_is_neither_evaluated_nor_sampled_nor_trained() {
    // Finite weights and activations, but the products of queries and keys are not.
    let model = chat_model("qwen");
    write_model(model.path(), json!({}), 1e12);
    let bench = Bench::new();
    let (dir, file) = (arg(model.path()), arg(&bench.train));
    let ran = hooke(&["eval", "--model", &dir, "--data", &file, "--per-token", "--json"]);
    assert_eq!(ran.failed(6, &["line 1", "NaN", "fix: "]).stdout, "", "no null in the JSON");
    let ran = hooke(&["generate", "--model", &dir, "--prompt", "a", "--max-new-tokens", "2"]);
    assert_eq!(ran.failed(6, &["a logit is NaN or infinite at token 0", "fix: "]).stdout, "");
    let ran = bench.finetune(model.path(), &["--max-steps", "2"]);
    ran.failed(6, &["step 1: ", "before the update"]);
    assert_eq!(fs::read_to_string(bench.output().join("metrics.jsonl")).unwrap(), "");
    assert_eq!(listing(&bench.output()), ["metrics.jsonl"]);
    // Found before the first step, by what is measured then: nothing is written at all.
    let bench = Bench::new();
    bench.refuses_model(
        model.path(),
        &["--sample-prompt", "a"],
        6,
        &["a logit is NaN or infinite"],
    );
}

#[test]
fn a_weight_that_is_not_a_number_is_refused_by_name_and_element() {
    let model = chat_model("qwen");
    let name = "model.layers.0.mlp.up_proj.weight";
    change_tensor(&model.path().join("model.safetensors"), name, |bytes| {
        bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let parts = ["model.safetensors", "`model.layers.0.mlp.up_proj.weight`, element 2", "NaN"];
    Bench::new().refuses_model(model.path(), &[], 4, &parts);
}

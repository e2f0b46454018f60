//! `hooke eval`.

use crate::support::command::{Ran, arg, hooke, keys};
use crate::support::embedded_model;
use crate::support::model_files::{chat_model, write_rows};
use hooke::checkpoint::model_dir::ModelDir;
use hooke::data::tokenizer::{SpecialTokens, Tokenizer};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::model::activations::{Activations, Keep};
use hooke::model::head::Head;
use hooke::model::{Input, Model};
use serde_json::{Value, json};
use std::f64::consts::LN_2;
use std::path::Path;

const TEXTS: [&str; 3] =
    ["Alice was beginning to get very tired.", "", "\u{201c}Curiouser and curiouser!\u{201d}"];

fn eval(model: &Path, rows: &[Value], flags: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("rows.jsonl");
    write_rows(&data, rows);
    let mut args = vec!["eval".into(), "--model".into(), arg(model), "--data".into(), arg(&data)];
    args.extend(flags.iter().map(|flag| flag.to_string()));
    let ran = hooke(&args).ok();
    assert_eq!(ran.stderr, "", "results only");
    let device = ran.device.as_deref().unwrap_or_default();
    assert!(device.contains("--device auto") && device.len() <= 80, "{device:?}");
    ran
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// −ln p of every token but the first, from the logits, in f64.
fn nll_from_logits(model_dir: &Path, ids: &[u32]) -> Vec<f64> {
    let dir = ModelDir::open(model_dir).unwrap();
    let weights = dir.load(&Device::Cpu, DType::F64).unwrap();
    let n = ids.len();
    let model = Model::new(&Device::Cpu, dir.config().clone(), weights, n).unwrap();
    let tokens: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let positions: Vec<i32> = (0..n as i32).collect();
    let input = Input { tokens: &tokens, positions: &positions, cu_seqlens: &[0, n as i32] };
    let mut acts = Activations::new(&model, n, 1, Keep::OneLayer).unwrap();
    model.forward(input, &mut acts).unwrap();
    let mut head = Head::new(&model, n).unwrap();
    let rows: Vec<usize> = (0..n - 1).collect();
    let mut nll = Vec::new();
    for chunk in rows.chunks(head.max_rows()) {
        let logits = model.logits(&acts, chunk, &mut head).unwrap().to_f64_vec().unwrap();
        for (logits, &i) in logits.chunks(dir.config().vocab_size).zip(chunk) {
            let max = logits.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
            nll.push(max + sum.ln() - logits[ids[i + 1] as usize]);
        }
    }
    nll
}

#[test]
fn every_row_has_its_ids_and_their_likelihoods_and_the_totals_are_their_sums() {
    let rows: Vec<Value> = TEXTS.iter().map(|text| json!({"text": text})).collect();
    let ran = eval(&embedded_model(), &rows, &["--per-token", "--json"]);
    let printed = ran.json();
    assert_eq!(printed.len(), TEXTS.len() + 1);
    let tokenizer = Tokenizer::load(&embedded_model()).unwrap();
    let (mut tokens, mut sum) = (0, 0.0);
    for (row, (object, text)) in printed.iter().zip(TEXTS).enumerate() {
        assert_eq!(keys(object), ["row", "ids", "nll", "scored_from"]);
        assert_eq!(object["row"], row);
        let ids = tokenizer.encode(text, SpecialTokens::Add).unwrap();
        assert_eq!(object["ids"], json!(ids), "no token beyond the tokenizer's own");
        let nll = numbers(&object["nll"]);
        assert_eq!(nll.len(), ids.len().saturating_sub(1));
        if !ids.is_empty() {
            // f32 against f64: the bound that the golden tests hold activations to, 2e-5 of the
            // scale, which is about 10 nats here.
            for (got, want) in nll.iter().zip(nll_from_logits(&embedded_model(), &ids)) {
                assert!((got - want).abs() < 2e-4, "row {row}: {got} for {want}");
            }
        }
        tokens += nll.len();
        sum += nll.iter().sum::<f64>();
    }
    let totals = &printed[TEXTS.len()];
    assert_eq!(keys(totals), ["rows", "tokens", "bytes", "nll", "bits_per_token", "bits_per_byte"]);
    let bytes: usize = TEXTS.iter().map(|text| text.len()).sum();
    assert_eq!((&totals["rows"], &totals["tokens"]), (&json!(3), &json!(tokens)));
    assert_eq!(totals["bytes"], bytes);
    let close = |key: &str, want: f64| {
        let got = totals[key].as_f64().unwrap();
        // Two sums of a few dozen f64 in different orders.
        assert!((got - want).abs() <= 1e-12 * want, "{key}: {got} for {want}");
    };
    close("nll", sum);
    close("bits_per_token", sum / LN_2 / tokens as f64);
    close("bits_per_byte", sum / LN_2 / bytes as f64);
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let rows: Vec<Value> = TEXTS.iter().map(|text| json!({"text": text})).collect();
    let together = eval(&embedded_model(), &rows, &["--per-token", "--json"]).json();
    let alone = eval(&embedded_model(), &rows[2..], &["--per-token", "--json"]).json();
    assert_eq!(alone[0]["ids"], together[2]["ids"]);
    for (a, b) in numbers(&alone[0]["nll"]).iter().zip(numbers(&together[2]["nll"])) {
        // f32 rounding of another summation order, at most.
        assert!((a - b).abs() < 2e-4, "{a} and {b}");
    }
}

#[test]
fn completions_and_answers_are_scored_and_what_leads_to_them_is_not() {
    let prompt_row = json!({"prompt": "Who was Emma?", "completion": " A clever woman."});
    let printed = eval(&embedded_model(), &[prompt_row], &["--per-token", "--json"]).json();
    let tokenizer = Tokenizer::load(&embedded_model()).unwrap();
    let count = |text: &str| tokenizer.encode(text, SpecialTokens::Omit).unwrap().len();
    assert_eq!(printed[0]["scored_from"], count("Who was Emma?"));
    assert_eq!(printed[1]["tokens"], count(" A clever woman."));
    assert_eq!(printed[1]["bytes"], " A clever woman.".len());
    let nll = numbers(&printed[0]["nll"]);
    let scored: f64 = nll[count("Who was Emma?") - 1..].iter().sum();
    assert!((printed[1]["nll"].as_f64().unwrap() - scored).abs() < 1e-9);

    for family in ["chatml", "llama3", "qwen"] {
        let model = chat_model(family);
        let row = json!({"messages": [{"role": "user", "content": "Who was Emma?"},
                                      {"role": "assistant", "content": "A clever woman."}]});
        let printed = eval(model.path(), &[row], &["--per-token", "--json"]).json();
        let tokenizer = Tokenizer::load(model.path()).unwrap();
        let answer = tokenizer.encode("A clever woman.", SpecialTokens::Omit).unwrap();
        // The answer and the token that ends the turn.
        assert_eq!(printed[1]["tokens"], answer.len() + 1, "{family}");
        assert_eq!(printed[1]["bytes"], "A clever woman.".len(), "{family}");
        let (ids, from) = (printed[0]["ids"].as_array().unwrap(), &printed[0]["scored_from"]);
        let from = from.as_u64().unwrap() as usize;
        assert_eq!(json!(ids[from..from + answer.len()]), json!(answer), "{family}");
    }
}

#[test]
fn rows_without_tokens_may_fill_a_whole_batch() {
    // Rows are computed about 2,048 tokens at a time: the two long ones get a batch each, and the
    // empty ones between them one of their own.
    let dir = chat_model("qwen");
    crate::support::model_files::write_model(
        dir.path(),
        json!({"max_position_embeddings": 4096}),
        1.0,
    );
    let long = json!({"text": "xq".repeat(1100)});
    let rows = [long.clone(), json!({"text": ""}), json!({"text": ""}), long];
    let printed = eval(dir.path(), &rows, &["--per-token", "--json"]).json();
    assert!(printed[0]["ids"].as_array().unwrap().len() > 2048, "long enough for the purpose");
    assert_eq!(printed[1]["nll"], json!([]));
    assert_eq!(printed[0]["nll"], printed[3]["nll"]);
    assert_eq!(printed[4]["rows"], 4);
}

#[test]
fn without_json_the_totals_are_two_lines_that_fit_80_columns() {
    let ran = eval(&embedded_model(), &[json!({"text": TEXTS[0]})], &[]);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    assert!(ran.stdout.contains(" bits/byte") && ran.stdout.contains(" nats/token"));
    assert!(ran.stdout.lines().all(|line| line.len() <= 80), "{}", ran.stdout);
    let ran = eval(&embedded_model(), &[json!({"text": TEXTS[0]})], &["--per-token"]);
    assert!(ran.stdout.lines().count() > 5, "{}", ran.stdout);
}

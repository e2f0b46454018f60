//! What `hooke finetune` makes of each kind of row, as the counts before step 1 tell it.

use crate::support::command::{Ran, arg, hooke, json_lines};
use crate::support::model_files::{chat_model, write_rows};
use hooke::data::chat::ChatTemplate;
use hooke::data::jsonl::Message;
use hooke::data::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

/// One step over all rows; returns what was said and the row of metrics.
fn train(model: &Path, rows: &[Value], flags: &[&str]) -> (Ran, Value) {
    let dir = tempfile::tempdir().unwrap();
    let (train, output) = (dir.path().join("rows.jsonl"), dir.path().join("run"));
    write_rows(&train, rows);
    let (model, train, out) = (arg(model), arg(&train), arg(&output));
    let mut args = vec!["finetune", "--model", &model, "--train", &train, "--output-dir", &out];
    args.extend(["--max-steps", "1"]);
    args.extend(flags);
    let ran = hooke(&args).ok();
    let metrics = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let [row] = &json_lines(&metrics)[..] else { panic!("{metrics}") };
    (ran, row.clone())
}

#[track_caller]
fn assert_counts(ran: &Ran, metrics: &Value, rows: &str, input: usize, trained: usize, stop: &str) {
    let before_step_1 = ran.stderr.split("\nstep ").next().unwrap();
    let tokens = format!("tokens    {input} in, {trained} trained (");
    for part in [rows, &tokens, stop] {
        assert!(before_step_1.contains(part), "no {part:?} before step 1 in: {}", ran.stderr);
    }
    assert_eq!(metrics["input_tokens"], input);
    assert_eq!(metrics["trained_tokens"], trained);
}

#[test]
fn text_is_trained_from_its_second_token_to_its_end_token() {
    let model = chat_model("llama3");
    let tokenizer = Tokenizer::load(model.path()).unwrap();
    let n = tokenizer.encode("Emma was clever.", SpecialTokens::Omit).unwrap().len();
    let rows = [json!({"text": "Emma was clever."}), json!({"text": ""})];
    let (ran, metrics) = train(model.path(), &rows, &[]);
    // Begin token and end token around it; the begin token has nothing to be predicted from.
    assert_counts(&ran, &metrics, "rows      2 read, 1 used", n + 2, n + 1, "1 by <|eot_id|>");
    assert!(ran.stderr.contains("dropped: 1 with nothing to learn but its end"), "{}", ran.stderr);
}

#[test]
fn of_prompt_and_completion_the_completion_and_its_end_are_trained() {
    let model = chat_model("qwen");
    let tokenizer = Tokenizer::load(model.path()).unwrap();
    let count = |text: &str| tokenizer.encode(text, SpecialTokens::Omit).unwrap().len();
    let rows = [
        json!({"prompt": "Who was Emma?", "completion": " A clever woman.", "id": 7}),
        json!({"prompt": "Was she tired?", "completion": ""}),
    ];
    let (ran, metrics) = train(model.path(), &rows, &[]);
    let (prompt, completion) = (count("Who was Emma?"), count(" A clever woman."));
    let input = prompt + completion + 1;
    let stop = "stop      1 rows (100.0 %) learn to stop, 1 by <|im_end|>";
    assert_counts(&ran, &metrics, "rows      2 read, 1 used", input, completion + 1, stop);
}

#[test]
fn of_messages_the_answers_and_their_ends_are_trained() {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let conversation = [
        message("user", "Who was Emma?"),
        message("assistant", "A clever woman."),
        message("user", "And Alice?"),
        message("assistant", "She was tired."),
    ];
    let rows = [json!({"messages": conversation}), json!({"messages": conversation[..1]})];
    for (family, end) in
        [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("qwen", "<|im_end|>")]
    {
        let model = chat_model(family);
        let tokenizer = Tokenizer::load(model.path()).unwrap();
        let template = ChatTemplate::load(model.path(), &tokenizer).unwrap().unwrap();
        let messages: Vec<Message> = conversation
            .iter()
            .map(|m| Message {
                role: m["role"].as_str().unwrap().into(),
                content: m["content"].as_str().unwrap().into(),
            })
            .collect();
        let count = |text: &str| tokenizer.encode(text, SpecialTokens::Omit).unwrap().len();
        let input = count(&template.render(&messages, false).unwrap());
        let trained = count("A clever woman.") + 1 + count("She was tired.") + 1;
        let (ran, metrics) = train(model.path(), &rows, &[]);
        let stop = format!("1 rows (100.0 %) learn to stop, 1 by {end}");
        assert_counts(&ran, &metrics, "rows      2 read, 1 used", input, trained, &stop);
        assert!(ran.stderr.contains("dropped: 1 with no trained token"), "{}", ran.stderr);
    }
}

#[test]
fn the_kinds_of_rows_may_be_mixed_and_split_over_micro_batches() {
    let model = chat_model("qwen");
    let rows = [
        json!({"text": "Emma was clever."}),
        json!({"prompt": "Who was Emma?", "completion": " A clever woman."}),
        json!({"messages": [{"role": "user", "content": "Who?"},
                            {"role": "assistant", "content": "Emma, of course."}]}),
    ];
    let (_, whole) = train(model.path(), &rows, &[]);
    let split = ["--per-device-train-batch-size", "1", "--gradient-accumulation-steps", "3"];
    let (_, split) = train(model.path(), &rows, &split);
    for key in ["input_tokens", "trained_tokens"] {
        assert_eq!(whole[key], split[key]);
    }
    for key in ["loss", "grad_norm"] {
        let (a, b) = (whole[key].as_f64().unwrap(), split[key].as_f64().unwrap());
        // One mean over the tokens of the step: splitting it changes f32 rounding only.
        assert!((a - b).abs() <= 1e-5 * a, "{key}: {a} and {b}");
    }
}

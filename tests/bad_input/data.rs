//! Rows: exit 3, with file, line and field.

use super::Bench;
use crate::support::command::{arg, hooke};
use crate::support::embedded_model;
use crate::support::model_files::{chat_model, write_model};
use serde_json::json;
use std::fs;

const GOOD: &str = "{\"text\": \"Alice was tired.\"}";

#[test]
fn a_broken_row_is_refused_by_line_and_field_whoever_reads_it() {
    let bench = Bench::new();
    let model = arg(&embedded_model());
    for (row, parts) in [
        ("{\"text\": \"Alice", ["line 2, column ", "expected valid JSON"]),
        ("{\"text\": \"a\"} {\"text\": \"b\"}", ["line 2, column ", "expected valid JSON"]),
        ("[\"text\"]", ["line 2: expected an object", "got an array"]),
        ("{}", ["line 2: expected `text`, ", "without keys"]),
        ("{\"txet\": \"a\"}", ["line 2: expected `text`, ", "only the keys `txet`"]),
        ("{\"text\": 7}", ["line 2, `text`: expected a string", "got number 7"]),
        ("{\"text\": null}", ["line 2, `text`: expected a string", "got null"]),
        ("{\"text\": \"a\", \"text\": \"b\"}", ["line 2, `text`", "several times"]),
        ("{\"text\": \"a\", \"prompt\": \"b\"}", ["line 2: expected one kind of row", "together"]),
        ("{\"prompt\": \"a\"}", ["line 2, `completion`", "the key is missing"]),
        ("{\"messages\": []}", ["line 2, `messages`", "an empty array"]),
        ("{\"messages\": \"hi\"}", ["line 2, `messages`: expected an array", "got string"]),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"robot\"}]}",
            ["line 2, `messages[1].role`", "\"robot\""],
        ),
        (
            "{\"messages\": [{\"role\": \"user\"}]}",
            ["line 2, `messages[0].content`", "the key is missing"],
        ),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
            ["line 2, `messages`", "chat template"],
        ),
    ] {
        fs::write(&bench.train, format!("{GOOD}\n{row}\n{GOOD}\n")).unwrap();
        let file = arg(&bench.train);
        bench.refuses(&[], 3, &[&[&*file, "expected ", "got "][..], &parts].concat());
        let args = ["eval", "--model", &model, "--data", &file, "--json"];
        assert_eq!(hooke(&args).failed(3, &[&*file, parts[0]]).stdout, "");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_by_their_place() {
    let bench = Bench::new();
    let lines = [GOOD.as_bytes(), b"\n", b"{\"text\": \"\xff\"}\n"].concat();
    fs::write(&bench.train, lines).unwrap();
    bench.refuses(&[], 3, &["line 2, byte 11", "UTF-8", "0xff"]);
    fs::write(&bench.train, b"\x1f\x8b\x08\x00\x00").unwrap();
    bench.refuses(&[], 3, &["line 1, byte ", "looks compressed"]);
    fs::write(&bench.train, b"\xff\xfe{\x00}\x00").unwrap();
    bench.refuses(&[], 3, &["line 1, byte 1", "looks like UTF-16"]);
    let deep = format!("{{\"text\": {}1{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    fs::write(&bench.train, deep).unwrap();
    bench.refuses(&[], 3, &["line 1, column ", "recursion limit"]);
}

#[test]
fn data_without_rows_or_without_a_file_is_refused() {
    let bench = Bench::new();
    let model = arg(&embedded_model());
    for (bytes, got) in [("", "an empty file"), ("\n  \n\r\n", "only blank lines")] {
        fs::write(&bench.train, bytes).unwrap();
        let file = arg(&bench.train);
        bench.refuses(&[], 3, &[&file, "expected at least one row", got]);
        hooke(&["eval", "--model", &model, "--data", &file]).failed(3, &["at least one row", got]);
    }
    fs::remove_file(&bench.train).unwrap();
    bench.refuses(&[], 7, &[&arg(&bench.train), "No such file or directory"]);
    fs::create_dir(&bench.train).unwrap();
    bench.refuses(&[], 7, &[&arg(&bench.train), "not a regular file"]);
    // The rows to evaluate are read before anything is trained.
    let good = Bench::new();
    good.refuses(&["--eval", "/nonexistent/rows.jsonl"], 7, &["/nonexistent/rows.jsonl"]);
}

#[test]
fn rows_with_nothing_to_learn_or_to_score_are_counted_in_the_refusal() {
    let bench = Bench::new();
    fs::write(&bench.train, "{\"text\": \"\"}\n{\"prompt\": \"a\", \"completion\": \"\"}\n")
        .unwrap();
    let file = arg(&bench.train);
    let counts = ["none of 2 rows can be trained on", "2 with nothing to learn", "fix: "];
    bench.refuses(&[], 3, &[&[&*file][..], &counts].concat());
    let model = arg(&embedded_model());
    hooke(&["eval", "--model", &model, "--data", &file])
        .failed(3, &[&file, "none of 2 rows has a token to score", "fix: "]);

    let chat = chat_model("qwen");
    let only_user = "{\"messages\": [{\"role\": \"user\", \"content\": \"Who?\"}]}\n";
    fs::write(&bench.train, only_user).unwrap();
    bench.refuses_model(chat.path(), &[], 3, &["none of 1 rows", "1 with no trained token"]);
    // The end of the turn is a token, but there is no text whose bytes could be counted.
    let silent = "{\"messages\": [{\"role\": \"user\", \"content\": \"Who?\"}, \
                  {\"role\": \"assistant\", \"content\": \"\"}]}\n";
    fs::write(&bench.train, silent).unwrap();
    let model = arg(chat.path());
    let ran = hooke(&["eval", "--model", &model, "--data", &file, "--json"]);
    assert_eq!(ran.failed(3, &["to score"]).stdout, "");
}

#[test]
fn a_row_beyond_the_limit_is_dropped_cut_or_refused_as_asked() {
    let dir = chat_model("qwen");
    write_model(dir.path(), json!({"max_position_embeddings": 16}), 1.0);
    let long = "Emma ".repeat(40);
    let rows = format!("{GOOD}\n{}\n", json!({"text": long}));
    let run = |policy: &str| {
        let bench = Bench::new();
        fs::write(&bench.train, &rows).unwrap();
        let ran = bench.finetune(dir.path(), &["--max-steps", "1", "--overlong", policy]).ok();
        let metrics = fs::read_to_string(bench.output().join("metrics.jsonl")).unwrap();
        let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
        (ran.stderr, metrics["input_tokens"].as_u64().unwrap())
    };
    let (dropped, short) = run("drop");
    assert!(short <= 16);
    assert!(dropped.contains("rows      2 read, 1 used"), "{dropped}");
    assert!(dropped.contains("dropped: 1 longer than max_seq_length 16"), "{dropped}");
    assert!(dropped.contains("stop      1 rows (100.0 %)"), "{dropped}");
    let (cut, tokens) = run("truncate");
    assert_eq!(tokens, short + 16, "the long row, cut");
    assert!(cut.contains("rows      2 read, 2 used"), "{cut}");
    assert!(cut.contains("cut to max_seq_length 16: 1"), "{cut}");
    assert!(cut.contains("trained tokens lost in cut rows"), "{cut}");
    assert!(cut.contains("stop      1 rows (50.0 %)"), "its end was cut off: {cut}");

    let bench = Bench::new();
    fs::write(&bench.train, &rows).unwrap();
    let parts = ["line 2", "at most 16 tokens", "fix: ", "--overlong"];
    bench.refuses_model(dir.path(), &["--overlong", "error"], 3, &parts);
    // Without the short row there is nothing left to train on.
    fs::write(&bench.train, format!("{}\n", json!({"text": long}))).unwrap();
    let parts = ["none of 1 rows", "1 longer than max_seq_length 16", "--overlong truncate"];
    bench.refuses_model(dir.path(), &["--overlong", "drop"], 3, &parts);
    let (model, file) = (arg(dir.path()), arg(&bench.train));
    let ran = hooke(&["eval", "--model", &model, "--data", &file, "--json"]);
    assert_eq!(ran.failed(3, &["line 1", "up to 16 tokens", "fix: "]).stdout, "");
}

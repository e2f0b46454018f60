//! Rows to examples: what is trained, what is dropped or cut, and that it is counted.

use super::{messages, pair, text};
use crate::tokenizer::smollm2;
use hooke::data::chat::ChatTemplate;
use hooke::data::encode::{Example, Overlong, encode_rows};
use hooke::data::jsonl::{NumberedRow, Row};
use hooke::data::report::EncodeReport;
use hooke::error::Result;
use std::path::Path;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + \
    '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
    {% endif %}";

fn encode(
    rows: &[Row],
    max_seq_length: usize,
    overlong: Overlong,
) -> Result<(Vec<Example>, EncodeReport)> {
    let rows: Vec<NumberedRow> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| NumberedRow { line: i + 1, row: row.clone() })
        .collect();
    let template = ChatTemplate::new(Path::new("t.jinja"), CHATML, smollm2(), 0).unwrap();
    let path = Path::new("rows.jsonl");
    encode_rows(path, &rows, smollm2(), Some(&template), max_seq_length, overlong)
}

fn encode_one(row: Row) -> Example {
    encode(&[row], 1000, Overlong::Error).unwrap().0.remove(0)
}

/// The example as text, what is trained in brackets.
fn shown(example: &Example) -> String {
    let mut out = String::new();
    let mut open = false;
    for (&id, &trained) in example.ids.iter().zip(&example.trained) {
        if trained != open {
            out.push(if trained { '[' } else { ']' });
            open = trained;
        }
        out += &smollm2().decode(&[id], false).unwrap();
    }
    if open { out + "]" } else { out }
}

/// SmolLM2's BOS is `<|im_start|>` and its EOS `<|im_end|>`.
#[test]
fn each_kind_of_row_trains_what_it_should() {
    for (row, want) in [
        (text("a b"), "<|im_start|>[a b<|im_end|>]"),
        (pair("Q: a\nA:", " b"), "<|im_start|>Q: a\nA:[ b<|im_end|>]"),
        (pair("", "b"), "<|im_start|>[b<|im_end|>]"),
        // Neither BOS nor EOS is doubled when the text brings its own.
        (text("<|im_start|>a<|im_end|>"), "<|im_start|>[a<|im_end|>]"),
        (pair("<|im_start|>q", "a<|im_end|>"), "<|im_start|>q[a<|im_end|>]"),
        (
            messages(&[("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]),
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]\n\
             <|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n",
        ),
    ] {
        assert_eq!(shown(&encode_one(row)), want);
    }
}

#[test]
fn no_token_straddles_the_end_of_the_prompt() {
    // Together these would be one token.
    let example = encode_one(pair("Hel", "lo"));
    assert_eq!(shown(&example), "<|im_start|>Hel[lo<|im_end|>]");
    assert!(example.ids.len() > encode_one(text("Hello")).ids.len());
}

#[test]
fn everything_left_out_is_counted() {
    let long = "word ".repeat(50);
    let rows = [
        text("one two three"),
        text(""),
        text(&long),
        pair("one", ""),
        pair(&long, "one"),
        messages(&[("user", "q")]),
        messages(&[("user", "q"), ("assistant", "a")]),
        text("spelt <|endoftext|> out"),
        // A byte that SmolLM2 has no token for.
        text("bell \u{4}"),
    ];
    let (examples, report) = encode(&rows, 20, Overlong::Drop).unwrap();
    let lines: Vec<usize> = examples.iter().map(|example| example.line).collect();
    assert_eq!(lines, [1, 7, 8, 9]);
    assert_eq!((report.rows, report.used), (9, 4));
    assert_eq!((report.dropped_overlong, report.dropped_untrained, report.empty), (2, 1, 2));
    assert_eq!((report.truncated, report.trained_tokens_truncated), (0, 0));
    // All of the long text, and of the long prompt "one" and EOS.
    let long_trained = encode_one(text(&long)).trained_tokens();
    assert_eq!(report.trained_tokens_dropped, long_trained + 2);
    assert_eq!(report.input_tokens, examples.iter().map(|e| e.ids.len()).sum::<usize>());
    assert_eq!(report.trained_tokens, examples.iter().map(Example::trained_tokens).sum::<usize>());
    assert_eq!(report.rows_with_eos, 4);
    assert_eq!((report.rows_with_spelt_control_tokens, report.lossy_rows), (1, 1));
    assert_eq!(report.length_quantiles[3], encode_one(pair(&long, "one")).ids.len());
}

#[test]
fn truncation_counts_the_trained_tokens_it_costs() {
    let rows = [text("a b c d e f"), pair("a b c d e f", "x y"), text("a")];
    let (examples, report) = encode(&rows, 4, Overlong::Truncate).unwrap();
    assert_eq!(shown(&examples[0]), "<|im_start|>[a b c]");
    assert_eq!(shown(&examples[1]), "<|im_start|>[a<|im_end|>]");
    // Of the second row only the prompt was left: nothing to train.
    assert_eq!((report.used, report.truncated, report.dropped_untrained), (2, 2, 1));
    assert_eq!(report.trained_tokens_truncated, 4 + 3);
    assert_eq!(report.rows_with_eos, 1, "a row that is cut does not learn to stop");
    for example in &examples {
        assert!(example.ids.len() <= 4);
    }
}

#[test]
fn an_overlong_row_can_be_an_error() {
    let rows = [text("a"), text("a b c d e f"), text("a b c d e f g")];
    assert_eq!(
        encode(&rows, 4, Overlong::Error).unwrap_err().to_string(),
        "rows.jsonl: line 2: expected at most 4 tokens (max_seq_length), got 8\n  fix: raise \
         --max-seq-length, or choose --overlong drop or truncate"
    );
}

#[test]
fn nothing_left_to_train_on_is_an_error_that_says_why() {
    let rows = [text(""), text("a b c d e f"), messages(&[("user", "q")])];
    let error = encode(&rows, 6, Overlong::Drop).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert_eq!(
        error.to_string(),
        "rows.jsonl: none of 3 rows can be trained on: 1 longer than max_seq_length 6, 1 with no \
         trained token, 1 with nothing to learn but its end\n  fix: raise --max-seq-length, or \
         choose --overlong truncate"
    );
    let error = encode(&rows[..1], 6, Overlong::Drop).unwrap_err().to_string();
    assert!(error.ends_with(
        "fix: give rows with text to learn: `text`, a `completion`, or \
        assistant `messages`"
    ));
    for max_seq_length in [0, 1] {
        for overlong in [Overlong::Drop, Overlong::Truncate] {
            assert!(encode(&[text("a")], max_seq_length, overlong).is_err());
        }
    }
}

#[test]
fn conversations_need_a_template_and_its_consent() {
    let rows = [
        NumberedRow { line: 3, row: text("a") },
        NumberedRow { line: 17, row: messages(&[("user", "q"), ("assistant", "a")]) },
    ];
    let path = Path::new("rows.jsonl");
    let encode = |template: Option<&ChatTemplate>| {
        let error = encode_rows(path, &rows, smollm2(), template, 100, Overlong::Drop);
        let error = error.unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    };
    assert_eq!(
        encode(None),
        "rows.jsonl: line 17, `messages`: expected a model with a chat template, got a model \
         without one\n  fix: add chat_template.jinja to the model directory, or give rows of \
         `prompt` and `completion`"
    );
    let template = |source: &str| ChatTemplate::new(path, source, smollm2(), 0).unwrap();
    assert_eq!(
        encode(Some(&template("{{ raise_exception('system first') }}"))),
        "rows.jsonl: line 17, `messages`: expected a conversation that the chat template accepts, \
         got system first (template line 1)"
    );
    let upper = CHATML.replace("m.content", "m.content.upper()");
    assert!(encode(Some(&template(&upper))).starts_with("rows.jsonl: line 17, `messages[1]`: "));
}

#[test]
fn the_report_is_a_table_for_people() {
    let rows = [text("one two"), text(""), messages(&[("user", "q"), ("assistant", "a")])];
    let (_, report) = encode(&rows, 100, Overlong::Drop).unwrap();
    assert_eq!(
        report.to_string(),
        "data      rows.jsonl\n\
         rows      3 read, 2 used\n          \
         dropped: 1 with nothing to learn but its end\n\
         tokens    17 in, 5 trained (29.4 %)\n\
         stop      2 rows (100.0 %) learn to stop, 2 by <|im_end|>\n\
         length    p50 4, p90 13, p99 13, max 13 tokens (rows as read)"
    );
    let (_, report) = encode(
        &[text("a b c d e f"), text("<|endoftext|>\u{4}"), pair("a b c", "d")],
        4,
        Overlong::Truncate,
    )
    .unwrap();
    assert_eq!(
        report.to_string(),
        "data      rows.jsonl\n\
         rows      3 read, 2 used\n          \
         dropped: 1 with no trained token\n          \
         cut to max_seq_length 4: 2\n\
         tokens    7 in, 5 trained (71.4 %)\n          \
         6 trained tokens lost in cut rows\n\
         stop      1 rows (50.0 %) learn to stop, 1 by <|im_end|>\n\
         note      1 rows spell out control tokens, which take effect\n\
         note      1 rows hold characters that the tokenizer does not know\n\
         length    p50 6, p90 8, p99 8, max 8 tokens (rows as read)"
    );
}

#[test]
fn encoding_does_not_depend_on_the_number_of_threads() {
    let rows: Vec<Row> =
        (0..300).map(|i| pair(&format!("{i} plus one is"), &format!(" {}", i + 1))).collect();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| encode(&rows, 100, Overlong::Drop).unwrap())
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(5), one);
}

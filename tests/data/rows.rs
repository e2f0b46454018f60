//! JSON Lines: what is read, and what every kind of bad line is told.

use super::{messages, pair, text};
use hooke::data::jsonl::{NumberedRow, read_rows};
use hooke::error::Error;
use hooke::rng::{Sequence, Stream};
use std::path::Path;

/// Writes bytes to a file named rows.jsonl and reads them; complaints are given without the
/// directory.
fn read(bytes: impl AsRef<[u8]>) -> Result<Vec<NumberedRow>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, bytes).unwrap();
    read_rows(&path).map_err(|error| {
        assert_eq!(error.exit_code(), 3, "{error}");
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    })
}

#[test]
fn the_three_kinds_of_row_are_read_with_their_line_numbers() {
    let rows = read(
        "\u{feff}{\"text\": \"a\\u00e9\\ud83d\\udc4b\", \"id\": 7}\r\n\
         \n   \t\r\n\
         {\"completion\": \"c\", \"meta\": {\"text\": 1}, \"prompt\": \"\"}\n\
         {\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"content\": \"\", \
         \"role\": \"assistant\", \"tool_calls\": null, \"weight\": 1}], \"tools\": []}",
    );
    let want = vec![
        NumberedRow { line: 1, row: text("a\u{e9}\u{1f44b}") },
        NumberedRow { line: 4, row: pair("", "c") },
        NumberedRow { line: 5, row: messages(&[("system", "s"), ("assistant", "")]) },
    ];
    assert_eq!(rows, Ok(want));
}

const ONE_OBJECT: &str = "\n  fix: each line must hold one JSON object (JSON Lines)";

#[test]
fn every_kind_of_bad_line_is_explained() {
    let deep = format!("{{\"text\": {}", "[".repeat(100_000));
    let long = format!("{{\"text\": [\"{}\"]}}", "x".repeat(1_000_000));
    let kinds = "`text`, `prompt` and `completion`, or `messages`";
    let invalid = |column: usize, what: &str| {
        format!(", column {column}: expected valid JSON, got {what}{ONE_OBJECT}")
    };
    let cases: Vec<(&str, String)> = vec![
        ("[1]", format!(": expected an object, got an array{ONE_OBJECT}")),
        ("\"text\"", format!(": expected an object, got string \"text\"{ONE_OBJECT}")),
        ("null", format!(": expected an object, got null{ONE_OBJECT}")),
        ("17", format!(": expected an object, got number 17{ONE_OBJECT}")),
        ("[", invalid(1, "EOF while parsing a list")),
        ("{", invalid(1, "EOF while parsing an object")),
        ("{\"text\": \"a\"", invalid(12, "EOF while parsing an object")),
        ("{\"text\": \"a", invalid(11, "EOF while parsing a string")),
        ("{\"text\": \"a\"} {\"text\": \"b\"}", invalid(15, "trailing characters")),
        ("{\"text\": \"a\",}", invalid(14, "trailing comma")),
        ("{'text': 'a'}", invalid(2, "key must be a string")),
        ("{\"text\": NaN}", invalid(10, "expected value")),
        ("{\"text\": \"é\tb\"}", {
            let what = "control character (\\u0000-\\u001F) found while parsing a string";
            invalid(12, what)
        }),
        ("{\"text\": \"\\ud800\"}", invalid(17, "unexpected end of hex escape")),
        ("{\"text\": \"\\udc00\"}", invalid(16, "lone leading surrogate in hex escape")),
        ("{\"text\": \"\\ud800\\u0041\"}", invalid(22, "lone leading surrogate in hex escape")),
        ("{\"text\": \"\\x41\"}", invalid(12, "invalid escape")),
        ("{\"text\": 1e999}", invalid(14, "number out of range")),
        ("\0", invalid(1, "expected value")),
        (&deep, invalid(136, "recursion limit exceeded")),
        ("{}", format!(": expected {kinds}, got an object without keys")),
        ("{\"Text\": \"a\"}", format!(": expected {kinds}, got only the keys `Text`")),
        (
            "{\"instruction\": \"a\", \"output\": \"b\"}",
            format!(
                ": expected {kinds}, got only the keys `instruction`, `output`\n  fix: Alpaca: put \
                 `instruction` and `input` into `prompt`, `output` into `completion`"
            ),
        ),
        (
            "{\"conversations\": []}",
            format!(
                ": expected {kinds}, got only the keys `conversations`\n  fix: ShareGPT: write \
                 `conversations` as `messages` with `role` and `content`"
            ),
        ),
        (
            "{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1}",
            format!(": expected {kinds}, got only the keys `a`, `b`, `c`, `d`, `e`, `f`, ..."),
        ),
        (
            "{\"text\": \"a\", \"messages\": []}",
            format!(": expected one kind of row ({kinds}), got `text` and `messages` together"),
        ),
        (
            "{\"text\": \"a\", \"prompt\": \"a\"}",
            format!(": expected one kind of row ({kinds}), got `text` and `prompt` together"),
        ),
        ("{\"text\": null}", ", `text`: expected a string, got null".into()),
        ("{\"text\": 17}", ", `text`: expected a string, got number 17".into()),
        ("{\"text\": -1.5}", ", `text`: expected a string, got number -1.5".into()),
        ("{\"text\": true}", ", `text`: expected a string, got true".into()),
        ("{\"text\": {}}", ", `text`: expected a string, got an object".into()),
        (&long, ", `text`: expected a string, got an array".into()),
        (
            "{\"text\": \"a\", \"text\": \"b\"}",
            ", `text`: expected the key once, got the key several times".into(),
        ),
        (
            "{\"prompt\": \"a\"}",
            ", `completion`: expected a string, got nothing: the key is missing".into(),
        ),
        (
            "{\"completion\": \"a\"}",
            ", `prompt`: expected a string, got nothing: the key is missing".into(),
        ),
        (
            "{\"prompt\": [{\"role\": \"user\"}], \"completion\": \"a\"}",
            ", `prompt`: expected a string, got an array".into(),
        ),
        (
            "{\"messages\": \"a\"}",
            ", `messages`: expected an array of messages, got string \"a\"".into(),
        ),
        (
            "{\"messages\": []}",
            ", `messages`: expected at least one message, got an empty array".into(),
        ),
        (
            "{\"messages\": [\"hi\"]}",
            ", `messages[0]`: expected an object with `role` and `content`, got string \"hi\""
                .into(),
        ),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\"}]}",
            ", `messages[1].content`: expected a string, got nothing: the key is missing".into(),
        ),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]}",
            ", `messages[0].content`: expected a string, got an array".into(),
        ),
        (
            "{\"messages\": [{\"role\": 1, \"content\": \"a\"}]}",
            ", `messages[0].role`: expected a string, got number 1".into(),
        ),
        (
            "{\"messages\": [{\"role\": \"asistant\", \"content\": \"a\"}]}",
            ", `messages[0].role`: expected one of system, developer, user, assistant, tool, \
             ipython, function, got \"asistant\""
                .into(),
        ),
        (
            "{\"messages\": [{\"role\": \"user\", \"role\": \"user\", \"content\": \"a\"}]}",
            ", `messages[0].role`: expected the key once, got the key several times".into(),
        ),
        (
            "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{}]}]}",
            ", `messages[0].tool_calls`: expected no such key: hooke would leave it out of the \
             text, got an array\n  fix: render it into `content`, or remove it"
                .into(),
        ),
        (
            "{\"tools\": [{}], \"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
            ", `tools`: expected no such key: hooke would leave it out of the text, got an \
             array\n  fix: render it into `content`, or remove it"
                .into(),
        ),
    ];
    for (line, want) in cases {
        // Two lines before and one after, so that the number is that of the file.
        let file = format!("{{\"text\": \"ok\"}}\n\n{line}\n{{\"text\": 5}}\n");
        let shown = &line[..line.len().min(80)];
        assert_eq!(read(file), Err(format!("rows.jsonl: line 3{want}")), "{shown}");
    }
}

#[test]
fn bytes_that_are_no_utf8_are_located() {
    let line = |bytes: &[u8]| [b"{\"text\": \"ok\"}\n", bytes].concat();
    assert_eq!(
        read(line(b"{\"text\": \"a\xffb\"}")),
        Err("rows.jsonl: line 2, byte 12: expected UTF-8 text, got byte 0xff".into())
    );
    // Cut in the middle of a character.
    assert_eq!(
        read(line(b"{\"text\": \"\xe4\xbd")),
        Err("rows.jsonl: line 2, byte 11: expected UTF-8 text, got byte 0xe4".into())
    );
    assert_eq!(
        read(b"\xff\xfe{\0\"\0"),
        Err("rows.jsonl: line 1, byte 1: expected UTF-8 text, got byte 0xff\n  fix: this looks \
             like UTF-16; save it as UTF-8"
            .into())
    );
    assert_eq!(
        read(b"\x1f\x8b\x08\0"),
        Err("rows.jsonl: line 1, byte 2: expected UTF-8 text, got byte 0x8b\n  fix: this looks \
             compressed; unpack it"
            .into())
    );
}

#[test]
fn files_without_rows_are_errors() {
    let none = |got: &str| Err(format!("rows.jsonl: expected at least one row, got {got}"));
    assert_eq!(read(""), none("an empty file"));
    assert_eq!(read("\u{feff}"), none("an empty file"));
    assert_eq!(read("\n \n\r\n\t\n"), none("only blank lines"));
}

#[test]
fn what_is_no_regular_file_is_an_error_and_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for path in [dir.path(), &fifo, Path::new("/dev/zero"), &dir.path().join("absent")] {
        let error = read_rows(path).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_eq!(error.exit_code(), 7);
    }
}

#[test]
fn the_first_bad_line_is_reported_whatever_the_number_of_threads() {
    let mut file = "{\"text\": \"ok\"}\n".repeat(5000);
    file += &"{\"text\": 1}\n".repeat(5000);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let message = pool.install(|| read(&file)).unwrap_err();
        assert_eq!(message, "rows.jsonl: line 5001, `text`: expected a string, got number 1");
    }
}

/// Bytes of JSON-like noise must give rows or an error, never a panic.
#[test]
fn noise_never_makes_the_reader_panic() {
    let mut random = Sequence::new(3, Stream::Test, [0, 0]);
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "text",
        "\"text\"",
        "messages",
        "role",
        "\\u",
        "\\ud8",
        "00",
        "\n",
        "\r",
        " ",
        "null",
        "1e",
        "-",
        "é",
        "\u{1f44b}",
        "\u{feff}",
        "\\",
        "\0",
    ];
    for _ in 0..3000 {
        let len = random.next_below(24);
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..len {
            bytes.extend(pieces[random.next_below(pieces.len() as u32) as usize].as_bytes());
        }
        if random.next_below(3) == 0 && !bytes.is_empty() {
            let at = random.next_below(bytes.len() as u32) as usize;
            bytes[at] = random.next_u32() as u8;
        }
        let _ = read(bytes);
    }
}

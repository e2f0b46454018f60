//! Tokenizers: real ones, and files that are wrong in every way the crate below would not survive.

mod damaged;

use hooke::data::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::LazyLock;

/// SmolLM2's tokenizer: 49,152 tokens, byte-level, ChatML.
pub fn smollm2() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::load(Path::new("tests/data/smollm2-tokenizer")).unwrap());
    &TOKENIZER
}

/// A tokenizer.json with four letters, two merges and two special tokens.
fn small() -> Value {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [added(6, "<s>"), added(7, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "_?[a-d]+"}, "behavior": "Isolated",
             "invert": false},
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [6], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
            {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "_": 2, "d": 3, "ab": 4, "_ab": 5},
            "merges": [["a", "b"], ["_", "ab"]],
        },
    })
}

fn added(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": true})
}

/// Loads a directory holding these files; complaints are given without the directory.
fn load(files: &[(&str, &[u8])]) -> Result<Tokenizer, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    Tokenizer::load(dir.path()).map_err(|error| {
        assert_eq!(error.exit_code(), 4, "{error}");
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    })
}

fn load_json(tokenizer: &Value, config: &Value) -> Result<Tokenizer, String> {
    let (tokenizer, config) = (tokenizer.to_string(), config.to_string());
    load(&[("tokenizer.json", tokenizer.as_bytes()), ("tokenizer_config.json", config.as_bytes())])
}

/// `small()` with the value at a JSON pointer replaced.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = small();
    *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    json
}

#[test]
fn smollm2_gives_the_ids_of_transformers() {
    // AutoTokenizer.from_pretrained(...)(text, add_special_tokens=False).input_ids
    for (text, ids) in [
        ("", &[][..]),
        ("Hello world", &[19556, 905]),
        (" Hello  World!\n\n\t2024", &[38_699, 216, 2260, 17, 14_436, 34, 32, 34, 36]),
        (
            "caf\u{e9} 你好 👋🏽",
            &[83, 1939, 2756, 216, 18_645, 250, 48_392, 138, 15_107, 235, 229, 10_813, 233, 138],
        ),
        ("<|im_start|>user\n<|im_end|>", &[1, 4093, 198, 2]),
    ] {
        assert_eq!(smollm2().encode(text, SpecialTokens::Omit).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn decoding_gives_the_text_back_if_the_vocabulary_has_its_bytes() {
    for text in ["Hello  World!\n\n", "It's 12345.", " é ü 你好 👋🏽 ก็\u{2028}", "a\tb\r\nc"]
    {
        let ids = smollm2().encode(text, SpecialTokens::Omit).unwrap();
        assert_eq!(smollm2().decode(&ids, false).unwrap(), text);
    }
    assert_eq!(smollm2().decode(&[1, 19556, 2], true).unwrap(), "Hello");
    assert_eq!(smollm2().decode(&[1, 19556, 2], false).unwrap(), "<|im_start|>Hello<|im_end|>");
    // Ids beyond the vocabulary, as a padded embedding can produce them, decode to nothing.
    assert_eq!(smollm2().decode(&[19556, 4_000_000], false).unwrap(), "Hello");
}

#[test]
fn named_tokens_come_from_the_config_and_then_from_the_map() {
    let named = |config: Value, map: Value| {
        let (small, config, map) = (small().to_string(), config.to_string(), map.to_string());
        let tokenizer = load(&[
            ("tokenizer.json", small.as_bytes()),
            ("tokenizer_config.json", config.as_bytes()),
            ("special_tokens_map.json", map.as_bytes()),
        ])?;
        Ok::<_, String>((tokenizer.bos(), tokenizer.eos()))
    };
    let none = || json!({});
    assert_eq!(named(none(), none()), Ok((None, None)));
    assert_eq!(named(json!({"eos_token": "</s>"}), none()), Ok((None, Some(7))));
    assert_eq!(named(json!({"eos_token": {"content": "</s>"}}), none()), Ok((None, Some(7))));
    assert_eq!(named(none(), json!({"bos_token": {"content": "<s>"}})), Ok((Some(6), None)));
    // `null` in the config is an answer (Qwen has no BOS), a missing key is not.
    let map = || json!({"bos_token": "<s>", "eos_token": "<s>"});
    let config = json!({"bos_token": null, "eos_token": "</s>"});
    assert_eq!(named(config, map()), Ok((None, Some(7))));
    assert_eq!(
        named(json!({"eos_token": "<eos>"}), none()),
        Err("tokenizer_config.json: `eos_token`: expected a token of tokenizer.json, got \
             \"<eos>\""
            .into())
    );
    assert_eq!(
        named(json!({"eos_token": 7}), none()),
        Err("tokenizer_config.json: `eos_token`: expected a string, or an object with `content`, \
             got 7"
            .into())
    );
}

#[test]
fn what_the_post_processor_adds_is_added_on_request_only() {
    let ids = |tokenizer: &Tokenizer, special| tokenizer.encode("ab ab", special).unwrap();
    let tokenizer = load_json(&small(), &json!({})).unwrap();
    assert_eq!(ids(&tokenizer, SpecialTokens::Omit), [4, 5]);
    assert_eq!(ids(&tokenizer, SpecialTokens::Add), [6, 4, 5]);
    let sequence = json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        small()["post_processor"],
    ]});
    let tokenizer = load_json(&with("/post_processor", sequence), &json!({})).unwrap();
    assert_eq!(ids(&tokenizer, SpecialTokens::Add), [6, 4, 5]);
    let tokenizer = load_json(&with("/post_processor", Value::Null), &json!({})).unwrap();
    assert_eq!(ids(&tokenizer, SpecialTokens::Add), [4, 5]);
}

#[test]
fn documents_begin_and_end_with_one_bos_and_one_eos() {
    let ends = |tokenizer: &Value, config: Value| {
        let tokenizer = load_json(tokenizer, &config).unwrap();
        (tokenizer.document_start(), tokenizer.document_end())
    };
    let both = || json!({"bos_token": "<s>", "eos_token": "</s>"});
    // The post-processor adds BOS itself; without it, it is added for it.
    assert_eq!(ends(&small(), both()), (vec![6], vec![7]));
    assert_eq!(ends(&with("/post_processor", Value::Null), both()), (vec![6], vec![7]));
    assert_eq!(ends(&small(), json!({})), (vec![6], vec![]));
    assert_eq!(ends(&with("/post_processor", Value::Null), json!({})), (vec![], vec![]));
}

#[test]
fn truncation_and_padding_of_the_file_are_switched_off() {
    let mut json = small();
    json["truncation"] = json!({"direction": "Right", "max_length": 1,
        "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
    let tokenizer = load_json(&json, &json!({})).unwrap();
    assert_eq!(tokenizer.encode("ab ab", SpecialTokens::Omit).unwrap(), [4, 5]);
}

#[test]
fn tokens_that_only_the_config_knows_are_added_as_transformers_adds_them() {
    let config = |id: &str| {
        json!({"added_tokens_decoder": {
        "6": added(6, "<s>"), (id): {"content": "<pad>", "special": true}}})
    };
    let tokenizer = load_json(&small(), &config("8")).unwrap();
    assert_eq!(tokenizer.encode("<pad>ab", SpecialTokens::Omit).unwrap(), [8, 4]);
    assert!(tokenizer.is_special(8));
    assert_eq!(
        load_json(&small(), &config("9")).unwrap_err(),
        "tokenizer_config.json: `added_tokens_decoder` (\"<pad>\"): expected the id that \
         tokenizer.json gives it, or the next free one, got 9"
    );
}

#[test]
fn a_tokenizer_that_is_larger_than_the_embedding_does_not_fit() {
    smollm2().check_fits(49_152).unwrap();
    smollm2().check_fits(60_000).unwrap();
    let error = smollm2().check_fits(49_151).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let message = error.to_string();
    let want = "expected ids below vocab_size 49151 of config.json, got id 49151 for token \"";
    assert!(message.contains(want), "{message}");
    assert!(message.ends_with("fix: use the tokenizer that belongs to the model"), "{message}");
    // Added tokens count, and so does what only the post-processor produces.
    let tokenizer = load_json(&small(), &json!({})).unwrap();
    assert!(tokenizer.check_fits(8).is_ok() && tokenizer.check_fits(7).is_err());
    let mut far = small();
    far["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([4_294_967_295_u32]);
    let tokenizer = load_json(&far, &json!({})).unwrap();
    assert!(tokenizer.check_fits(1_000_000).is_err());
}

#[test]
fn files_that_are_no_tokenizer_are_refused_with_the_place() {
    let text = small().to_string();
    for (bytes, want) in [
        (&b""[..], "line 1, column 0: expected valid JSON, got EOF while parsing a value"),
        (b"\xff\xfe", "line 1, column 1: expected valid JSON, got expected value"),
        (b"[]", "`model.type`: expected \"BPE\", got null"),
        (&text.as_bytes()[..text.len() / 2], "expected valid JSON, got EOF while parsing"),
    ] {
        let message = load(&[("tokenizer.json", bytes)]).unwrap_err();
        assert!(message.starts_with("tokenizer.json: "), "{message}");
        assert!(message.contains(want), "{message}");
    }
    assert_eq!(
        load(&[]).unwrap_err(),
        "tokenizer.json: expected a Hugging Face tokenizer, got no such file\n  fix: save it with \
         transformers: AutoTokenizer.from_pretrained(...).save_pretrained(DIR)"
    );
}

#[test]
fn parts_that_hooke_does_not_do_or_the_crate_does_not_survive_are_refused() {
    let many = "a".repeat(40);
    for (pointer, value, want) in [
        ("/model/type", json!("Unigram"), "`model.type`: expected \"BPE\", got \"Unigram\""),
        (
            "/model/dropout",
            json!(0.1),
            "`model.dropout`: expected none (the same text must give the same ids), got 0.1",
        ),
        (
            "/model/continuing_subword_prefix",
            json!("##"),
            "`model.continuing_subword_prefix`: expected none, got \"##\"",
        ),
        (
            "/model/vocab",
            json!(["a"]),
            "`model.vocab`: expected an object from tokens to ids, got an array",
        ),
        (
            "/model/vocab/d",
            json!(4_294_967_295_u32),
            "`model.vocab[\"d\"]`: expected an id below 2147483647, got 4294967295",
        ),
        (
            "/model/vocab/d",
            json!(-1),
            "`model.vocab[\"d\"]`: expected an id below 2147483647, got -1",
        ),
        (
            "/model/unk_token",
            json!("<unk>"),
            "`model.unk_token`: expected a token of `model.vocab`, got \"<unk>\"",
        ),
        // The crate panics on this one: the merge is longer than any token.
        (
            "/model/merges/0",
            json!(["_ab", "_ab"]),
            "`model.merges[0]`: expected tokens of `model.vocab`, got \"_ab_ab\", which is not \
             there",
        ),
        (
            "/model/merges/0",
            json!([many, "a"]),
            "`model.merges[0]`: expected tokens of `model.vocab`, got \
             \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\", which is not there",
        ),
        (
            "/model/merges/1",
            json!("a b c"),
            "`model.merges[1]`: expected a pair of tokens, got \"a b c\"",
        ),
        (
            "/model/merges/1",
            json!(["a"]),
            "`model.merges[1]`: expected a pair of tokens, got [\"a\"]",
        ),
        ("/model/merges", json!({}), "`model.merges`: expected an array of pairs, got an object"),
        (
            "/normalizer/normalizers/0",
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            "`normalizer`: expected a `type` among Sequence, NFC, NFD, NFKC, NFKD, Lowercase, \
             Strip, StripAccents, Prepend, Replace, got \"Precompiled\"",
        ),
        (
            "/normalizer/normalizers/1/pattern/String",
            json!(""),
            "`normalizer`: expected something to replace, got an empty pattern",
        ),
        (
            "/normalizer/normalizers/0",
            json!({"type": "Prepend", "prepend": ""}),
            "`normalizer`: expected something to prepend, got an empty string",
        ),
        (
            "/pre_tokenizer/pretokenizers",
            Value::Null,
            "`pre_tokenizer`: expected an array `pretokenizers`, got nothing",
        ),
        (
            "/decoder/decoders/1",
            json!({"type": "Strip", "content": " ", "start": 0, "stop": 2}),
            "`decoder`: expected `stop` 0, got 2",
        ),
        (
            "/post_processor/single/1/Sequence/id",
            json!("B"),
            "`post_processor`: expected only sequence \"A\" in `single`, got \"B\"",
        ),
        (
            "/post_processor/special_tokens",
            json!({}),
            "`post_processor`: expected the ids of \"<s>\" in `special_tokens`, got null",
        ),
        (
            "/post_processor/single",
            json!([]),
            "`post_processor`: expected one sequence in `single`, got 0",
        ),
        (
            "/added_tokens/1/id",
            json!(9),
            "`added_tokens[1]` (\"</s>\"): expected the next free id, or the id that \
             `model.vocab` gives it, got 9",
        ),
        (
            "/added_tokens/1/content",
            json!(""),
            "`added_tokens[1]` (\"\"): expected the next free id, or the id that `model.vocab` \
             gives it, got 7",
        ),
    ] {
        let message = load_json(&with(pointer, value), &json!({})).unwrap_err();
        assert_eq!(message, format!("tokenizer.json: {want}"));
    }
    let regex = json!("(unclosed");
    let bad_regex = with("/pre_tokenizer/pretokenizers/0/pattern/Regex", regex);
    let message = load_json(&bad_regex, &json!({})).unwrap_err();
    assert!(message.starts_with(
        "tokenizer.json: expected a tokenizer that the tokenizers crate accepts, got "
    ));
}

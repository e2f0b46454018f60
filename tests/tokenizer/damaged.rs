//! Tokenizer files damaged at every place: an error or a tokenizer, never a panic.

use super::{load, load_json, small};
use hooke::data::tokenizer::SpecialTokens;
use hooke::rng::{Sequence, Stream};
use serde_json::{Value, json};
use std::mem::discriminant;

/// Every JSON pointer of a value, the root excepted.
fn pointers(value: &Value, prefix: &str, out: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect()
        }
        _ => return,
    };
    for (key, child) in children {
        let pointer = format!("{prefix}/{}", key.replace('~', "~0").replace('/', "~1"));
        out.push(pointer.clone());
        pointers(child, &pointer, out);
    }
}

/// A tokenizer with the parts of byte-level families, so that those are damaged too.
fn byte_level() -> Value {
    let mut json = small();
    json["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Strip", "strip_left": true, "strip_right": true},
        {"type": "Prepend", "prepend": "a"},
        {"type": "Lowercase"},
    ]});
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": true},
        {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    ]});
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        {"type": "ByteFallback"},
        {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": true},
    ]});
    json["post_processor"] = json!({"type": "ByteLevel", "add_prefix_space": true,
        "trim_offsets": true, "use_regex": true});
    json["model"]["merges"] = json!(["a b", "_ ab"]);
    json["model"]["ignore_merges"] = json!(true);
    json["model"]["byte_fallback"] = json!(true);
    json["model"]["unk_token"] = json!("d");
    json
}

/// A panic in here fails the test: that is what it looks for.
#[test]
fn no_damaged_tokenizer_makes_loading_or_encoding_panic() {
    let mut random = Sequence::new(5, Stream::Test, [7, 0]);
    let odd: Vec<Value> = serde_json::from_str(
        r#"[null, true, false, -1, 0, 1, 3, 1e9, 4294967295, 4294967296, 18446744073709551615, 0.5,
            "", "a", "_", "é", "b c", "(?:a|a)*b", "$", "", "Sequence", "ByteLevel", "Replace",
            "Contiguous", "MergedWithNext", "Removed", "first", "never", "B", "unk",
            [], {}, ["a", "b"], [[]], [6], {"type": "Fuse"}, {"type": "NFKC"}]"#,
    )
    .unwrap();
    let (mut loaded, mut refused) = (0, 0);
    for base in [small(), byte_level()] {
        load_json(&base, &json!({})).unwrap();
        let mut all = Vec::new();
        pointers(&base, "", &mut all);
        // At random, one to three places at a time; mostly values of the same type, so that
        // many get past the checks.
        let damage: Vec<Vec<(&String, &Value)>> = (0..800)
            .map(|_| {
                let mut pick = |n: usize| random.next_below(n as u32) as usize;
                let mut changes = Vec::new();
                for _ in 0..1 + pick(3) {
                    let pointer = &all[pick(all.len())];
                    let place = base.pointer(pointer).unwrap();
                    let any = pick(8) == 0;
                    let fits = |value: &&Value| any || discriminant(*value) == discriminant(place);
                    let values: Vec<&Value> = odd.iter().filter(fits).collect();
                    changes.push((pointer, values[pick(values.len())]));
                }
                changes
            })
            .collect();
        for changes in damage {
            let mut json = base.clone();
            for (pointer, value) in changes {
                if let Some(place) = json.pointer_mut(pointer) {
                    *place = value.clone();
                }
            }
            match load_json(&json, &json!({})) {
                Err(_) => refused += 1,
                Ok(tokenizer) => {
                    loaded += 1;
                    let _ = tokenizer.decode(&[], true);
                    for text in ["", "ab ab\n", "é 你 <s>a</s>", "  a1b22 _ab!"] {
                        if let Ok(ids) = tokenizer.encode(text, SpecialTokens::Add) {
                            let _ = tokenizer.decode(&ids, true);
                        }
                    }
                }
            }
        }
    }
    assert!(loaded > 200 && refused > 200, "{loaded} loaded, {refused} refused");
}

#[test]
fn cut_files_are_errors_wherever_they_are_cut() {
    let text = byte_level().to_string();
    for len in 0..text.len() {
        assert!(load(&[("tokenizer.json", &text.as_bytes()[..len])]).is_err(), "{len} bytes");
    }
}

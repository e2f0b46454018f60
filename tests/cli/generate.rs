//! `hooke generate`.

use crate::support::command::{Ran, arg, hooke, keys};
use crate::support::embedded_model;
use crate::support::model_files::chat_model;
use hooke::data::chat::ChatTemplate;
use hooke::data::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

fn generate(model: &Path, args: &[&str]) -> Ran {
    let mut all = vec!["generate".to_string(), "--model".into(), arg(model)];
    all.extend(args.iter().map(|arg| arg.to_string()));
    let ran = hooke(&all).ok();
    assert_eq!(ran.stderr, "", "results only");
    ran
}

fn generate_json(model: &Path, args: &[&str]) -> Vec<Value> {
    generate(model, &[args, &["--json"]].concat()).json()
}

#[test]
fn a_completion_is_printed_with_its_ids_and_why_it_ended() {
    let args = ["--prompt", "Alice was", "--raw", "--max-new-tokens", "7", "--temperature", "0"];
    let printed = generate_json(&embedded_model(), &args);
    let [object] = &printed[..] else { panic!("{printed:?}") };
    assert_eq!(keys(object), ["prompt", "completion", "completion_ids", "finish_reason"]);
    assert_eq!(
        (&object["prompt"], &object["finish_reason"]),
        (&json!("Alice was"), &json!("length"))
    );
    let ids: Vec<u32> = serde_json::from_value(object["completion_ids"].clone()).unwrap();
    assert_eq!(ids.len(), 7);
    let tokenizer = Tokenizer::load(&embedded_model()).unwrap();
    let prompt = tokenizer.encode("Alice was", SpecialTokens::Add).unwrap();
    let whole = tokenizer.decode(&[prompt, ids].concat(), true).unwrap();
    let completion = object["completion"].as_str().unwrap();
    assert_eq!(format!("Alice was{completion}"), whole);
    let text = generate(&embedded_model(), &args).stdout;
    assert_eq!(text, format!("{whole}\n"), "the text alone without --json");
}

#[test]
fn the_default_length_fits_the_model() {
    // 128 positions, half of what is asked for by default.
    let printed = generate_json(&embedded_model(), &["--prompt", "Alice", "--ignore-eos"]);
    let tokenizer = Tokenizer::load(&embedded_model()).unwrap();
    let prompt = tokenizer.encode("Alice", SpecialTokens::Add).unwrap();
    assert_eq!(printed[0]["completion_ids"].as_array().unwrap().len(), 128 - prompt.len());
    let none = generate_json(&embedded_model(), &["--prompt", "Alice", "--max-new-tokens", "0"]);
    assert_eq!((&none[0]["completion"], &none[0]["completion_ids"]), (&json!(""), &json!([])));
}

#[test]
fn a_sample_depends_on_seed_row_and_position_only() {
    let sampled = |prompts: &[&str], seed: &str, threads: &str| {
        let mut args = vec!["--raw", "--max-new-tokens", "12", "--temperature", "1.2", "--top-p"];
        args.extend(["0.95", "--top-k", "200", "--seed", seed, "--threads", threads]);
        args.extend(prompts.iter().flat_map(|prompt| ["--prompt", prompt]));
        generate_json(&embedded_model(), &args)
    };
    let alone = sampled(&["The Queen"], "3", "1");
    assert_eq!(alone, sampled(&["The Queen"], "3", "2"), "again, with other threads");
    // Ten prompts are more than are computed together.
    let ten =
        sampled(&["The Queen", "A", "Why", "So", "Oh", "It", "He", "She", "But", "No"], "3", "2");
    assert_eq!(ten.len(), 10);
    assert_eq!(alone[0], ten[0], "in company");
    assert_ne!(alone[0], sampled(&["The Queen"], "4", "2")[0], "another seed");
    let twice = sampled(&["The Queen", "The Queen"], "3", "2");
    assert_ne!(twice[0]["completion_ids"], twice[1]["completion_ids"], "another row");
}

#[test]
fn a_text_ends_at_any_token_that_generation_config_names_unless_told_otherwise() {
    let model = chat_model("qwen");
    let args = ["--prompt", "Emma", "--raw", "--max-new-tokens", "9"];
    let free = generate_json(model.path(), &[&args[..], &["--ignore-eos"]].concat());
    let ids = free[0]["completion_ids"].as_array().unwrap().clone();
    assert_eq!((ids.len(), &free[0]["finish_reason"]), (9, &json!("length")));
    let end = ids.iter().position(|id| *id == ids[4]).unwrap();
    let config = json!({"eos_token_id": [487, ids[4]]});
    std::fs::write(model.path().join("generation_config.json"), config.to_string()).unwrap();
    let ended = generate_json(model.path(), &args);
    assert_eq!(ended[0]["finish_reason"], "eos");
    assert_eq!(ended[0]["completion_ids"], json!(ids[..=end]), "the end token included");
    let ignored = generate_json(model.path(), &[&args[..], &["--ignore-eos"]].concat());
    assert_eq!(ignored, free);
}

#[test]
fn a_prompt_is_a_message_of_the_user_unless_raw() {
    for family in ["chatml", "llama3", "qwen"] {
        let model = chat_model(family);
        let tokenizer = Tokenizer::load(model.path()).unwrap();
        let template = ChatTemplate::load(model.path(), &tokenizer).unwrap().unwrap();
        let message = hooke::data::jsonl::Message { role: "user".into(), content: "Who?".into() };
        let rendered = template.render(&[message], true).unwrap();
        // Raw text is given the begin token by the tokenizer; the template spells it out.
        let rendered = rendered.strip_prefix("<|begin_of_text|>").unwrap_or(&rendered);
        let flags = ["--max-new-tokens", "6", "--ignore-eos", "--prompt"];
        let chat = generate_json(model.path(), &[&flags[..], &["Who?"]].concat());
        let by_hand = generate_json(model.path(), &[&flags[..], &[rendered, "--raw"]].concat());
        let raw = generate_json(model.path(), &[&flags[..], &["Who?", "--raw"]].concat());
        assert_eq!(chat[0]["prompt"], "Who?", "as it was given");
        assert_eq!(chat[0]["completion_ids"], by_hand[0]["completion_ids"], "{family}");
        assert_ne!(chat[0]["completion_ids"], raw[0]["completion_ids"], "{family}");
    }
}

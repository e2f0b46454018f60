//! Chat templates: text, ids and masks against transformers, and the ways templates misbehave.

use crate::tokenizer::smollm2;
use hooke::data::chat::ChatTemplate;
use hooke::data::jsonl::Message;
use hooke::data::tokenizer::{SpecialTokens, Tokenizer};
use std::path::{Path, PathBuf};

fn template(tokenizer: &Tokenizer, source: &str) -> ChatTemplate {
    ChatTemplate::new(Path::new("t.jinja"), source, tokenizer, 0).unwrap()
}

/// Messages from (role, content) pairs.
fn chat(turns: &[(&str, &str)]) -> Vec<Message> {
    let message = |&(role, content): &(&str, &str)| Message {
        role: role.to_owned(),
        content: content.to_owned(),
    };
    turns.iter().map(message).collect()
}

/// The runs of trained tokens, decoded.
fn trained_texts(tokenizer: &Tokenizer, ids: &[u32], trained: &[bool]) -> Vec<String> {
    assert_eq!(ids.len(), trained.len());
    let mut runs: Vec<Vec<u32>> = Vec::new();
    for (i, &id) in ids.iter().enumerate().filter(|&(i, _)| trained[i]) {
        match runs.last_mut() {
            Some(run) if i > 0 && trained[i - 1] => run.push(id),
            _ => runs.push(vec![id]),
        }
    }
    runs.iter().map(|run| tokenizer.decode(run, false).unwrap()).collect()
}

fn trained(source: &str, turns: &[(&str, &str)]) -> Vec<String> {
    let tokenizer = smollm2();
    let (ids, trained) = template(tokenizer, source).encode(tokenizer, &chat(turns)).unwrap();
    trained_texts(tokenizer, &ids, &trained)
}

fn refusal(source: &str, turns: &[(&str, &str)]) -> String {
    let tokenizer = smollm2();
    template(tokenizer, source).encode(tokenizer, &chat(turns)).unwrap_err().to_string()
}

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\n' }}{% endif %}";

/// The way of Qwen3: reasoning is left out of history, and the last turn always has a block.
const QWEN3: &str = "\
{%- for message in messages %}
    {%- if message.role != 'assistant' %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- else %}
        {%- set content = message.content %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.last %}
            {{- '<|im_start|>assistant\n<think>\n' + reasoning + '\n</think>\n\n' + content }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
";

#[test]
fn every_turn_of_the_assistant_is_trained_with_its_end_and_without_the_newline_after_it() {
    let turns = [
        ("system", "s"),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "assistant\ntwo"),
        ("assistant", "two"),
    ];
    assert_eq!(trained(CHATML, &turns), ["two<|im_end|>", "two<|im_end|>"]);
}

#[test]
fn content_is_found_by_place_and_not_by_looking_for_it() {
    // The answer also occurs in the question, in the template and in itself.
    for answer in ["a", "assistant", "\n", "user\na", "aaaa", "<|im_end", "é", "👋🏽"] {
        let turns = [("user", "a assistant a"), ("assistant", answer), ("user", answer)];
        assert_eq!(trained(CHATML, &turns).concat().trim(), format!("{answer}<|im_end|>").trim());
    }
}

#[test]
fn history_that_is_treated_differently_from_the_last_turn_is_trained_as_it_is_rendered() {
    let turns = [
        ("user", "q"),
        ("assistant", "<think>\nfirst\n</think>\n\nold"),
        ("user", "r"),
        ("assistant", "<think>\nsecond\n</think>\n\nnew"),
    ];
    let last = "<think>\nsecond\n</think>\n\nnew<|im_end|>";
    assert_eq!(trained(QWEN3, &turns), ["old<|im_end|>", last]);
    // The model has to write the empty block too: the prompt does not give it.
    let plain = [("user", "q"), ("assistant", "old"), ("user", "r"), ("assistant", "new")];
    let last = "<think>\n\n</think>\n\nnew<|im_end|>";
    assert_eq!(trained(QWEN3, &plain), ["old<|im_end|>", last]);
}

#[test]
fn trimmed_and_empty_answers_are_trained_as_rendered() {
    let trimming = CHATML.replace("message['content']", "message['content'] | trim");
    let turns =
        [("user", " q "), ("assistant", "  padded \n"), ("assistant", ""), ("assistant", " ")];
    assert_eq!(trained(&trimming, &turns), ["padded<|im_end|>", "<|im_end|>", "<|im_end|>"]);
}

#[test]
fn an_empty_turn_that_the_template_leaves_out_is_not_trained() {
    let skipping = "{% for m in messages %}{{ '<|im_start|>' + m.role }}{% if m.content %}\
        {{ '\n' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}";
    let turns = [("user", "q"), ("assistant", ""), ("user", "r"), ("assistant", "a")];
    assert_eq!(trained(skipping, &turns), ["a<|im_end|>"]);
}

#[test]
fn a_template_without_header_or_end_token_trains_the_content_alone() {
    // Llama 2's way: the end token follows a blank, which belongs to the turn.
    let llama2 = "{% for m in messages %}{% if m.role == 'user' %}\
        {{ '[INST] ' + m.content + ' [/INST]' }}\
        {% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}";
    let turns = [("user", "q"), ("assistant", "a b"), ("user", "r"), ("assistant", "c")];
    assert_eq!(trained(llama2, &turns), [" a b <|im_end|>", " c <|im_end|>"]);
    let bare = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    assert_eq!(trained(bare, &turns), [" a b", " c"]);
}

#[test]
fn generation_tags_decide_what_is_trained() {
    let tags = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
        {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\
        {% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}";
    let turns = [("user", "q"), ("assistant", "one"), ("user", "r"), ("assistant", "two")];
    assert_eq!(trained(tags, &turns), ["one", "two"]);
    let tokenizer = smollm2();
    let text = template(tokenizer, tags).render(&chat(&turns[..2]), false).unwrap();
    assert_eq!(text, "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\none<|im_end|>\n");
}

#[test]
fn markers_in_the_text_are_not_mistaken_for_ours() {
    let private = "\u{100000}\u{100001} \u{10FFFD}";
    let turns = [("user", private), ("assistant", private)];
    let tokenizer = smollm2();
    let (ids, mask) = template(tokenizer, CHATML).encode(tokenizer, &chat(&turns)).unwrap();
    // SmolLM2's vocabulary has no byte F4, which begins these characters: both are cut short.
    let decoded = tokenizer.decode(&ids, false).unwrap();
    assert!(decoded.starts_with("<|im_start|>user\n"), "{decoded:?}");
    assert!(trained_texts(tokenizer, &ids, &mask)[0].ends_with("<|im_end|>"));
}

#[test]
fn templates_that_hide_what_the_assistant_said_are_refused() {
    let turns = [("user", "q"), ("assistant", "Some \"quoted\" answer")];
    let changed = "t.jinja: `messages[1]`: expected a chat template that prints the assistant's \
        content as it is, got a template that changes the content\n  fix: mark what the assistant \
        says with {% generation %} ... {% endgeneration %} in the chat template";
    let upper = CHATML.replace("message['content']", "message['content'].upper()");
    assert_eq!(refusal(&upper, &turns), changed);
    let json = CHATML.replace("message['content']", "(message['content'] | tojson)");
    assert_eq!(refusal(&json, &turns), changed);
    let twice = CHATML.replace("message['content']", "message['content'] + message['content']");
    assert!(refusal(&twice, &turns).contains("prints the content twice"));
    let backwards = "{% for m in messages[::-1] %}{{ m.role + ':' + m.content }}\n{% endfor %}";
    let two = [("user", "q"), ("assistant", "one"), ("assistant", "two")];
    assert!(refusal(backwards, &two).contains("another order"));
}

#[test]
fn what_a_template_refuses_is_reported_in_its_own_words() {
    let strict = format!(
        "{{% if messages[0].role == 'assistant' %}}\
         {{{{ raise_exception('Conversations must begin with the user') }}}}{{% endif %}}{CHATML}"
    );
    assert_eq!(
        refusal(&strict, &[("assistant", "a")]),
        "t.jinja: expected a conversation that the chat template accepts, got Conversations must \
         begin with the user (template line 1)"
    );
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    assert!(refusal(endless, &[("user", "q")]).contains("runs for too long"));
}

#[test]
fn templates_that_are_no_jinja_are_refused_when_they_are_loaded() {
    let tokenizer = smollm2();
    for (source, got) in [
        ("{% if %}", "unexpected end of block"),
        ("{% for m in messages %}", "unexpected end of input"),
        ("{% generation %}", "generation without endgeneration"),
        ("{{ 'a", "unexpected end of string"),
        (&"{% if true %}".repeat(10_000), "recursion"),
    ] {
        let result = ChatTemplate::new(Path::new("t.jinja"), source, tokenizer, 0);
        let error = result.map(|_| ()).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        let message = error.to_string();
        assert!(message.contains(got), "{message}");
    }
}

#[test]
fn a_text_that_begins_with_two_bos_tokens_is_refused() {
    // SmolLM2's BOS is <|im_start|>.
    let double = format!("{{{{ bos_token }}}}{CHATML}");
    assert!(
        refusal(&double, &[("user", "q"), ("assistant", "a")])
            .contains("expected one BOS token at the start, got two")
    );
}

#[test]
fn dates_come_from_the_pinned_clock() {
    let tokenizer = smollm2();
    let dated = "{{ strftime_now('%d %b %Y') }}";
    let render = |clock| {
        let template = ChatTemplate::new(Path::new("t"), dated, tokenizer, clock).unwrap();
        template.render(&chat(&[("user", "q")]), false).unwrap()
    };
    assert_eq!(render(0), "01 Jan 1970");
    assert_eq!(render(1_735_689_600), "01 Jan 2025");
}

struct ModelDir(tempfile::TempDir);

impl ModelDir {
    fn with(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn rendered(&self) -> Result<Option<String>, String> {
        let template = ChatTemplate::load(self.0.path(), smollm2())
            .map_err(|e| e.to_string().replace(&format!("{}/", self.0.path().display()), ""))?;
        Ok(template.map(|t| t.render(&chat(&[("user", "q")]), false).unwrap()))
    }
}

#[test]
fn the_template_is_looked_for_where_transformers_looks() {
    let jinja = ("chat_template.jinja", "file");
    let string = ("tokenizer_config.json", r#"{"chat_template": "string"}"#);
    let list = (
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "rag", "template": "r"},
            {"name": "default", "template": "d"}]}"#,
    );
    let found = |files: &[(&str, &str)]| ModelDir::with(files).rendered();
    assert_eq!(found(&[jinja, string]), Ok(Some("file".into())));
    assert_eq!(found(&[string]), Ok(Some("string".into())));
    assert_eq!(found(&[list]), Ok(Some("d".into())));
    assert_eq!(found(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]), Ok(None));
    assert_eq!(found(&[]), Ok(None));
    for (config, want) in [
        (
            r#"{"chat_template": [{"name": "rag", "template": "r"}]}"#,
            "tokenizer_config.json: `chat_template`: expected a template, or a list of templates \
             with one named default, got templates named rag",
        ),
        (
            r#"{"chat_template": 5}"#,
            "tokenizer_config.json: `chat_template`: expected a template, or a list of templates \
             with one named default, got 5",
        ),
        (
            "{\"chat_template\": ",
            "tokenizer_config.json: line 1, column 18: expected valid JSON, got EOF while parsing \
             a value",
        ),
    ] {
        assert_eq!(found(&[("tokenizer_config.json", config)]), Err(want.into()));
    }
}

fn golden_directories() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = std::fs::read_dir("tests/golden/chat")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("cases.json").exists())
        .collect();
    directories.sort();
    directories
}

/// Made by transformers (`tools/golden_chat.py`); the masks are its `return_assistant_tokens_mask`
/// on a copy of the template with generation tags, which most templates come without.
#[test]
fn text_ids_and_masks_equal_those_of_transformers() {
    let directories = golden_directories();
    assert!(directories.len() >= 3, "ChatML, Llama-3 and Qwen at least: {directories:?}");
    for directory in directories {
        let tokenizer = Tokenizer::load(&directory).unwrap();
        let template = ChatTemplate::load(&directory, &tokenizer).unwrap().unwrap();
        let file = std::fs::read(directory.join("cases.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() >= 10);
        for (i, case) in cases.iter().enumerate() {
            let what = format!("{} case {i} ({})", directory.display(), case["name"]);
            let text_of = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let messages: Vec<Message> = case["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| Message { role: text_of(&m["role"]), content: text_of(&m["content"]) })
                .collect();
            let text = template.render(&messages, false).unwrap();
            assert_eq!(text, case["text"], "{what}");
            if case["prompt"].is_string() {
                assert_eq!(template.render(&messages, true).unwrap(), case["prompt"], "{what}");
            }
            let (ids, mask) = template.encode(&tokenizer, &messages).unwrap();
            assert_eq!(serde_json::json!(ids), case["ids"], "{what}");
            let mask: Vec<u8> = mask.into_iter().map(u8::from).collect();
            assert_eq!(serde_json::json!(mask), case["mask"], "{what}");
            assert_eq!(ids, tokenizer.encode(&text, SpecialTokens::Omit).unwrap(), "{what}");
        }
    }
}

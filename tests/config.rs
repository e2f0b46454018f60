//! `config.json`: the defaults of transformers, and everything that must be refused.

use hooke::error::{Error, FileKind};
use hooke::model::config::{Family, ModelConfig, RopeScaling};
use hooke::ops::Heads;
use serde_json::{Value, json};
use std::path::Path;

fn parse(text: &str) -> Result<ModelConfig, Error> {
    ModelConfig::from_json(Path::new("some/config.json"), text.as_bytes())
}

fn read(value: Value) -> ModelConfig {
    parse(&value.to_string()).unwrap()
}

/// A small model, with `changes` laid over it.
fn with(changes: Value) -> Value {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 64
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// The same as [`with`] for the Qwen families.
fn qwen(version: u32, changes: Value) -> Value {
    let mut config = with(json!({
        "architectures": [format!("Qwen{version}ForCausalLM")],
        "model_type": format!("qwen{version}")
    }));
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[track_caller]
fn refused(text: &str, place: &str, expected: &str, got: &str) {
    match parse(text) {
        Err(Error::File(problem)) => {
            assert_eq!(problem.kind, FileKind::Model);
            assert_eq!(problem.path, Path::new("some/config.json"));
            let told = (&problem.place, &problem.expected, &problem.got);
            assert!(problem.place.contains(place), "place of {told:?} for {text}");
            assert!(problem.expected.contains(expected), "expectation of {told:?} for {text}");
            assert!(problem.got.contains(got), "finding of {told:?} for {text}");
        }
        Err(other) => panic!("{other} for {text}"),
        Ok(config) => panic!("accepted {text} as {config:?}"),
    }
}

#[test]
fn an_empty_llama_has_the_defaults_of_transformers() {
    assert_eq!(
        read(json!({"model_type": "llama"})),
        ModelConfig {
            family: Family::Llama,
            hidden_size: 4096,
            num_layers: 32,
            heads: Heads { num_heads: 32, num_kv_heads: 32, head_dim: 128 },
            intermediate_size: 11008,
            vocab_size: 32000,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: 10000.0,
            rope_scaling: RopeScaling::None,
            tie_word_embeddings: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            eos_token_ids: vec![2],
        }
    );
}

#[test]
fn an_empty_qwen_has_the_defaults_of_transformers() {
    let qwen2 = read(json!({"model_type": "qwen2"}));
    assert_eq!(
        qwen2,
        ModelConfig {
            family: Family::Qwen2,
            intermediate_size: 22016,
            vocab_size: 151_936,
            max_position_embeddings: 32768,
            qkv_bias: true,
            eos_token_ids: vec![],
            ..read(json!({"model_type": "llama"}))
        }
    );
    let qwen3 = read(json!({"model_type": "qwen3", "hidden_size": 1000}));
    let heads = Heads { num_heads: 32, num_kv_heads: 32, head_dim: 128 };
    let family = Family::Qwen3;
    let qkv_bias = false;
    let want = ModelConfig { family, hidden_size: 1000, heads, qkv_bias, qk_norm: true, ..qwen2 };
    assert_eq!(qwen3, want);
}

#[test]
fn key_value_heads_default_to_the_query_heads_for_llama_and_to_32_for_qwen() {
    let heads = |config: Value| read(config).heads.num_kv_heads;
    let mut config = with(json!({"num_key_value_heads": null}));
    assert_eq!(heads(config.clone()), 4);
    config.as_object_mut().unwrap().remove("num_key_value_heads");
    assert_eq!(heads(config.clone()), 4);
    assert_eq!(heads(qwen(2, json!({"num_key_value_heads": null}))), 4);
    config["model_type"] = json!("qwen2");
    config["architectures"] = json!(null);
    refused(&config.to_string(), "num_key_value_heads", "divisor", "32 (the default)");
    config["num_attention_heads"] = json!(64);
    config["head_dim"] = json!(2);
    assert_eq!(heads(config), 32);
}

#[test]
fn head_size_is_derived_unless_stated() {
    let size = |config: Value| read(config).heads.head_dim;
    assert_eq!(size(with(json!({}))), 16);
    assert_eq!(size(with(json!({"head_dim": null}))), 16);
    assert_eq!(size(with(json!({"head_dim": 40}))), 40);
    assert_eq!(size(qwen(2, json!({}))), 16);
    assert_eq!(size(qwen(2, json!({"head_dim": 40, "hidden_size": 66}))), 40);
    assert_eq!(size(qwen(3, json!({}))), 128);
    assert_eq!(size(qwen(3, json!({"head_dim": 6, "hidden_size": 66}))), 6);
}

#[test]
fn biases_and_norms_follow_the_family() {
    let traits = |c: ModelConfig| [c.qkv_bias, c.o_bias, c.mlp_bias, c.qk_norm];
    let biased = json!({"attention_bias": true, "mlp_bias": true});
    assert_eq!(traits(read(with(json!({})))), [false; 4]);
    assert_eq!(traits(read(with(biased.clone()))), [true, true, true, false]);
    assert_eq!(traits(read(qwen(2, biased.clone()))), [true, false, false, false]);
    assert_eq!(traits(read(qwen(3, biased))), [true, true, false, true]);
    assert_eq!(traits(read(qwen(3, json!({})))), [false, false, false, true]);
}

#[test]
fn rotary_parameters_are_read_in_the_old_and_the_new_form() {
    let rope = |changes: Value| {
        let config = read(with(changes));
        (config.rope_theta, config.rope_scaling)
    };
    let none = RopeScaling::None;
    assert_eq!(rope(json!({})), (1e4, none));
    assert_eq!(rope(json!({"rope_theta": 5e5, "rope_scaling": null})), (5e5, none));
    assert_eq!(rope(json!({"rope_theta": 500_000, "rope_scaling": {}})), (5e5, none));
    assert_eq!(rope(json!({"rope_scaling": {"type": "default"}})), (1e4, none));
    assert_eq!(rope(json!({"rope_parameters": {"rope_theta": 5e5}})), (5e5, none));
    let inner = json!({"rope_theta": 1e6, "rope_parameters": {"rope_theta": 5e5}});
    assert_eq!(rope(inner), (5e5, none));
    let outer = json!({"rope_theta": 1e6, "rope_parameters": {"rope_type": "default"}});
    assert_eq!(rope(outer), (1e6, none));
    let linear = RopeScaling::Linear { factor: 4.0 };
    for kind in ["type", "rope_type"] {
        assert_eq!(rope(json!({"rope_scaling": {kind: "linear", "factor": 4}})), (1e4, linear));
    }
    let both = json!({"rope_scaling": {"type": "dynamic", "rope_type": "linear", "factor": 4.0}});
    assert_eq!(rope(both), (1e4, linear));
    let competing = json!({
        "rope_scaling": {"type": "linear", "factor": 4.0},
        "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}
    });
    assert_eq!(rope(competing), (1e4, linear));
}

#[test]
fn llama3_scaling_takes_the_original_context_from_where_transformers_does() {
    let scaling = |original: Value, outside: Value| {
        let mut rope = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0
        });
        rope["original_max_position_embeddings"] = original;
        let object = rope.as_object_mut().unwrap();
        object.retain(|_, value| !value.is_null());
        let mut config = with(json!({"rope_scaling": rope}));
        if !outside.is_null() {
            config["original_max_position_embeddings"] = outside;
        }
        match read(config).rope_scaling {
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings,
            } => original_max_position_embeddings,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(scaling(json!(32), json!(null)), 32);
    assert_eq!(scaling(json!(null), json!(null)), 64);
    assert_eq!(scaling(json!(32), json!(16)), 16);
}

#[test]
fn end_ids_are_a_number_a_list_or_nothing() {
    let ids = |eos: Value| read(with(json!({"eos_token_id": eos}))).eos_token_ids;
    assert_eq!(ids(json!(7)), [7]);
    assert_eq!(ids(json!([9, 7])), [9, 7]);
    assert!(ids(json!(null)).is_empty());
    assert_eq!(read(with(json!({}))).eos_token_ids, [2]);
    assert!(read(with(json!({"vocab_size": 2}))).eos_token_ids.is_empty());
    assert!(read(qwen(2, json!({}))).eos_token_ids.is_empty());
}

#[test]
fn windows_that_are_configured_but_unused_are_accepted() {
    let full = json!(["full_attention", "full_attention"]);
    for changes in [
        json!({"use_sliding_window": false, "sliding_window": 32, "max_window_layers": 0}),
        json!({"use_sliding_window": true, "sliding_window": 32, "max_window_layers": 2}),
        json!({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0}),
        json!({"use_sliding_window": true, "max_window_layers": 0, "layer_types": full}),
        json!({"layer_types": full}),
    ] {
        read(qwen(2, changes.clone()));
        read(qwen(3, changes));
    }
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let sliding = json!(["full_attention", "sliding_attention"]);
    let llama3 = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4.0,
        "high_freq_factor": 4.0});
    for (changes, place, expected, got) in [
        (json!({"model_type": "mistral"}), "model_type", "`llama`, `qwen2` or", "\"mistral\""),
        (json!({"model_type": null}), "model_type", "`llama`", "null"),
        (
            json!({"architectures": ["LlamaForSequenceClassification"]}),
            "architectures",
            "LlamaForCausalLM",
            "LlamaForSequenceClassification",
        ),
        (json!({"model_type": "qwen3"}), "architectures", "Qwen3ForCausalLM", "LlamaForCausalLM"),
        (json!({"architectures": "LlamaForCausalLM"}), "architectures", "[\"Llama", "\"Llama"),
        (json!({"hidden_act": "gelu"}), "hidden_act", "`silu`", "`gelu`"),
        (json!({"hidden_act": null}), "hidden_act", "a string", "null"),
        (
            json!({"quantization_config": {"quant_method": "gptq"}}),
            "quantization_config",
            "not quantized",
            "gptq",
        ),
        (json!({"pretraining_tp": 2}), "pretraining_tp", "1", "2"),
        (json!({"attention_dropout": 0.1}), "attention_dropout", "0", "0.1"),
        (
            json!({"layer_types": sliding}),
            "layer_types",
            "2 times",
            "\"sliding_attention\" for layer 1",
        ),
        (json!({"layer_types": ["full_attention"]}), "layer_types", "2 times", "1 entries"),
        (json!({"layer_types": 3}), "layer_types", "2 times", "3"),
        (json!({"per_layer_config": [{}]}), "per_layer_config", "alike", "[{}]"),
        (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor`", "1", "0.5"),
        (
            json!({"rope_parameters": {"partial_rotary_factor": 0.5}}),
            "`rope_parameters.partial_rotary_factor`",
            "1",
            "0.5",
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}),
            "`rope_scaling.type`",
            "llama3",
            "`yarn`",
        ),
        (
            json!({"rope_scaling": {"rope_type": "dynamic"}}),
            "`rope_scaling.rope_type`",
            "linear",
            "`dynamic`",
        ),
        (
            json!({"rope_parameters": {"rope_type": "longrope"}}),
            "rope_parameters.rope_type",
            "default",
            "`longrope`",
        ),
        (
            json!({"rope_scaling": {"factor": 4.0}}),
            "rope_scaling.rope_type",
            "kind of scaling",
            "nothing",
        ),
        (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor", "number", "nothing"),
        (json!({"rope_scaling": {"type": "linear", "factor": 0.5}}), "factor", "at least 1", "0.5"),
        (json!({"rope_scaling": {"type": "linear", "factor": "4"}}), "factor", "number", "\"4\""),
        (json!({"rope_scaling": {"type": null}}), "rope_scaling.type", "a string", "null"),
        (json!({"rope_scaling": "linear"}), "`rope_scaling`", "an object or null", "\"linear\""),
        (json!({"rope_scaling": llama3}), "high_freq_factor", "more than `low_freq_factor`", "4"),
        (
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            "rope_parameters.full_attention",
            "all layers",
            "default",
        ),
    ] {
        refused(&with(changes).to_string(), place, expected, got);
    }
}

#[test]
fn windows_in_use_are_refused() {
    for version in [2, 3] {
        let on = json!({"use_sliding_window": true, "max_window_layers": 1});
        let config = qwen(version, on).to_string();
        refused(&config, "use_sliding_window", "false", "true, with windows from layer 1 on");
        // 28 layers are the default from which windows begin.
        let deep = json!({"use_sliding_window": true, "num_hidden_layers": 29});
        let config = qwen(version, deep).to_string();
        refused(&config, "use_sliding_window", "false", "from layer 28 on");
        let odd = qwen(version, json!({"max_window_layers": -1})).to_string();
        refused(&odd, "max_window_layers", "at least 0", "-1");
    }
}

#[test]
fn hostile_numbers_are_refused_in_every_size() {
    for field in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "max_position_embeddings",
    ] {
        for (value, got) in [
            ("0", "0"),
            ("-4", "-4"),
            ("4.5", "4.5"),
            ("4.0", "4.0"),
            ("\"64\"", "\"64\""),
            ("true", "true"),
            ("[64]", "[64]"),
            ("2147483648", "2147483648"),
            ("18446744073709551616", "1.8446744073709552e+19"),
            ("1e300", "1e+300"),
        ] {
            let text = with(json!({field: "HERE"})).to_string().replace("\"HERE\"", value);
            refused(&text, field, "an integer from 1 to 2147483647", got);
        }
    }
}

#[test]
fn numbers_beyond_a_double_are_refused_by_line() {
    let text = "{\n  \"rms_norm_eps\": 1e400\n}";
    refused(text, "line 2, column", "valid JSON", "number out of range");
    for value in ["0", "0.0", "-1e-6", "\"1e-6\"", "null", "1e-400", "[]"] {
        for field in ["rms_norm_eps", "rope_theta"] {
            let text = with(json!({field: "HERE"})).to_string().replace("\"HERE\"", value);
            refused(&text, field, "a finite number greater than 0", "");
        }
    }
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    const HUGE: u32 = i32::MAX as u32;
    for (changes, place, expected, got) in [
        (json!({"num_key_value_heads": 8}), "num_key_value_heads", "divisor of", "8"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads", "which is 4", "3"),
        (json!({"hidden_size": 66}), "hidden_size", "multiple of", "66"),
        (json!({"hidden_size": 66, "head_dim": 16}), "hidden_size", "multiple of", "66"),
        (json!({"hidden_size": 60}), "head_dim", "even", "15"),
        (json!({"head_dim": 7}), "head_dim", "even", "7"),
        (json!({"num_hidden_layers": 4097}), "num_hidden_layers", "at most 4096", "4097"),
        (
            json!({"hidden_size": HUGE - 3, "vocab_size": HUGE, "num_hidden_layers": 4096,
                "intermediate_size": HUGE, "head_dim": 16}),
            "hidden_size",
            "can be addressed",
            "overflow",
        ),
        (
            json!({"head_dim": HUGE - 1, "hidden_size": HUGE - 3}),
            "hidden_size",
            "addressed",
            "overflow",
        ),
        (json!({"eos_token_id": 100}), "eos_token_id", "from 0 to 99", "100"),
        (json!({"eos_token_id": -1}), "eos_token_id", "from 0", "-1"),
        (json!({"eos_token_id": [2, "x"]}), "eos_token_id", "from 0", "\"x\""),
        (json!({"eos_token_id": 2.0}), "eos_token_id", "from 0", "2.0"),
        (json!({"tie_word_embeddings": "yes"}), "tie_word_embeddings", "true or false", "\"yes\""),
        (json!({"attention_bias": 1}), "attention_bias", "true or false", "1"),
        (json!({"mlp_bias": null}), "mlp_bias", "true or false", "null"),
    ] {
        refused(&with(changes).to_string(), place, expected, got);
    }
    refused(&qwen(2, json!({"hidden_size": 66})).to_string(), "hidden_size", "multiple", "66");
    refused(&qwen(3, json!({"head_dim": null})).to_string(), "head_dim", "integer", "null");
}

#[test]
fn what_is_not_a_json_object_is_refused_by_line() {
    refused("", "line 1, column 0", "valid JSON", "EOF");
    refused("[]", "", "a JSON object", "[]");
    refused("\"x\"", "", "a JSON object", "\"x\"");
    refused("{\n\"hidden_size\": 3,\n}", "line 3", "valid JSON", "trailing comma");
    refused("{\"a\": NaN}", "line 1", "valid JSON", "expected value");
    refused(&"[".repeat(100_000), "line 1", "valid JSON", "recursion limit");
    refused("{}", "model_type", "`llama`", "nothing");
    let error = ModelConfig::from_json(Path::new("c"), b"{\"\xff\": 1}").unwrap_err();
    assert!(error.to_string().contains("line 1, column"), "{error}");
    assert_eq!(error.exit_code(), 4);
}

#[test]
fn a_long_value_is_not_printed_whole() {
    let text = with(json!({"hidden_act": 1, "model_type": "x".repeat(5000)})).to_string();
    let message = parse(&text).unwrap_err().to_string();
    assert!(message.len() < 400, "{message}");
}

//! Model directories: exit 4, with the file and what is wrong in it.

use super::Bench;
use crate::support::command::{arg, hooke, keys};
use crate::support::embedded_model;
use crate::support::model_files::{chat_model, copy_dir};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn copy_of_embedded() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&embedded_model(), dir.path());
    dir
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn configurations_that_hooke_does_not_compute_are_refused_by_field() {
    let bench = Bench::new();
    for (change, parts) in [
        (json!({"model_type": "gpt2"}), ["`model_type`", "\"gpt2\""]),
        (json!({"model_type": null}), ["`model_type`", "got"]),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), ["`architectures`", "got"]),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), ["`rope_scaling.", "yarn"]),
        (json!({"quantization_config": {"bits": 4}}), ["`quantization_config`", "not quantized"]),
        (json!({"hidden_act": "gelu"}), ["`hidden_act`", "gelu"]),
        (json!({"hidden_size": -128}), ["`hidden_size`", "-128"]),
        (json!({"hidden_size": "128"}), ["`hidden_size`", "\"128\""]),
        (json!({"num_attention_heads": 3}), ["`num_", "got"]),
        (json!({"num_hidden_layers": 2147483647u32}), ["`num_hidden_layers`", "2147483647"]),
        (json!({"num_hidden_layers": 5}), ["no `model.layers.4.", "expected the tensors"]),
        (json!({"num_hidden_layers": 3}), ["an unknown `model.layers.3.", "expected the tensors"]),
        (json!({"intermediate_size": 342}), ["of shape [341, 128] instead of [342, 128]", "mlp"]),
        (json!({"tie_word_embeddings": false}), ["no `lm_head.weight`", "expected the tensors"]),
        (json!({"rms_norm_eps": 0}), ["`rms_norm_eps`", "got 0"]),
    ] {
        let dir = copy_of_embedded();
        edit_json(&dir.path().join("config.json"), |config| {
            for key in keys(&change) {
                config[key] = change[key].clone();
            }
        });
        bench.refuses_model(dir.path(), &[], 4, &[&[&*arg(dir.path())][..], &parts].concat());
    }
    let qwen = chat_model("qwen");
    edit_json(&qwen.path().join("config.json"), |config| {
        config["model_type"] = "qwen2".into();
        config["architectures"] = json!(["Qwen2ForCausalLM"]);
        config["use_sliding_window"] = true.into();
        config["sliding_window"] = 16.into();
        config["max_window_layers"] = 0.into();
    });
    bench.refuses_model(qwen.path(), &[], 4, &["config.json", "sliding_window"]);
}

#[test]
fn a_tokenizer_and_a_model_that_do_not_fit_each_other_are_refused_before_training() {
    let bench = Bench::new();
    let dir = copy_of_embedded();
    // 485 tokens for an embedding of 1,024 rows would work; the reverse cannot.
    let small = chat_model("llama3");
    fs::copy(dir.path().join("tokenizer.json"), small.path().join("tokenizer.json")).unwrap();
    fs::remove_file(small.path().join("tokenizer_config.json")).unwrap();
    let parts = ["tokenizer.json", "1023", "488"];
    bench.refuses_model(small.path(), &[], 4, &parts);
    let model = arg(small.path());
    hooke(&["generate", "--model", &model, "--prompt", "a"]).failed(4, &parts);
    hooke(&["eval", "--model", &model, "--data", &arg(&bench.train)]).failed(4, &parts);

    edit_json(&dir.path().join("tokenizer.json"), |json| json["model"]["type"] = "Unigram".into());
    bench.refuses_model(dir.path(), &[], 4, &["tokenizer.json", "`model.type`", "Unigram"]);
}

#[test]
fn files_that_are_missing_cut_or_something_else_are_refused_by_name() {
    let bench = Bench::new();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        let whole = fs::read(embedded_model().join(name)).unwrap();
        let cuts = [0, 1, 9, whole.len() / 2, whole.len() - 1];
        let mut damaged: Vec<Vec<u8>> = cuts.iter().map(|&n| whole[..n].to_vec()).collect();
        damaged.push([&whole[..], b"x"].concat());
        damaged.push(vec![0xff; 64]);
        damaged.push(b"[]".to_vec());
        for bytes in damaged {
            let dir = copy_of_embedded();
            fs::write(dir.path().join(name), &bytes).unwrap();
            bench.refuses_model(dir.path(), &[], 4, &[name, "expected ", "got "]);
        }
        let dir = copy_of_embedded();
        fs::remove_file(dir.path().join(name)).unwrap();
        if name != "tokenizer_config.json" {
            bench.refuses_model(dir.path(), &[], 4, &[name, "expected "]);
        }
        fs::create_dir(dir.path().join(name)).unwrap();
        let ran = bench.finetune(dir.path(), &[]);
        assert!(matches!(ran.code, Some(4 | 7)), "{name} is a directory: {ran:?}");
        assert!(ran.stderr.contains(name), "{ran:?}");
    }
    let dir = copy_of_embedded();
    fs::write(dir.path().join("generation_config.json"), "{\"eos_token_id\": \"x\"}").unwrap();
    bench.refuses_model(dir.path(), &[], 4, &["generation_config.json", "`eos_token_id`"]);
}

#[test]
fn a_directory_that_is_no_model_is_refused() {
    let bench = Bench::new();
    let empty = tempfile::tempdir().unwrap();
    bench.refuses_model(empty.path(), &[], 4, &["config.json", "nothing of that name"]);
    bench.refuses_model(
        Path::new("/nonexistent"),
        &[],
        4,
        &["/nonexistent", "expected a directory"],
    );
    let file = embedded_model().join("model.safetensors");
    bench.refuses_model(&file, &[], 4, &["expected a directory", "got a file"]);
    let pickled = copy_of_embedded();
    fs::remove_file(pickled.path().join("model.safetensors")).unwrap();
    fs::write(pickled.path().join("pytorch_model.bin"), "x").unwrap();
    bench.refuses_model(pickled.path(), &[], 4, &["pickle", "fix: ", "save_pretrained"]);
}

#[test]
fn a_reference_that_is_none_is_refused() {
    let model = arg(&embedded_model());
    let weights = arg(&embedded_model().join("model.safetensors"));
    for (reference, part) in [
        ("/nonexistent.safetensors", "nothing of that name"),
        (&*weights, "`hooke_reference`"),
        (&arg(&embedded_model().join("config.json")), "header"),
    ] {
        let args = ["validate", "model", "--model", &model, "--reference", reference];
        assert_eq!(hooke(&args).failed(4, &[reference, part]).stdout, "");
    }
}

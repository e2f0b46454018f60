//! Model directories: what is accepted, what is refused, and that writing gives back what was read.

use super::{
    Stored, assert_refused, glassllm, listing, make_fifo, model, random, tiny_config, tiny_tensors,
    write_config, write_file,
};
use hooke::checkpoint::atomic::StagedDir;
use hooke::checkpoint::model_dir::ModelDir;
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::error::Error;
use hooke::model::params::Params;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use std::fs;
use std::path::Path;

fn load(dir: &Path, dtype: DType) -> (ModelDir, Params) {
    let model = ModelDir::open(dir).unwrap();
    let params = model.load(&Device::Cpu, dtype).unwrap();
    (model, params)
}

fn save(model: &ModelDir, params: &Params, out: &Path) {
    let staged = StagedDir::new(out).unwrap();
    model.save(params, &staged).unwrap();
    staged.commit().unwrap();
}

/// Reads with the safetensors crate.
fn stored(dir: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
}

#[test]
fn the_real_model_comes_out_byte_for_byte() {
    for dtype in [DType::F32, DType::F64, DType::F16] {
        let (model, params) = load(&glassllm(), dtype);
        assert_eq!(params.flat().shape().num_elems(), 852_608);
        assert_eq!(model.config().intermediate_size, 341);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        save(&model, &params, &out);
        assert_eq!(listing(&out), listing(&glassllm()));
        for name in listing(&out) {
            let (got, want) = (fs::read(out.join(&name)), fs::read(glassllm().join(&name)));
            assert!(got.unwrap() == want.unwrap(), "{name} differs as {dtype}");
        }
    }
}

#[test]
fn parameters_are_the_values_of_the_tensors_of_their_names() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let tensors = tiny_tensors(dtype);
        let dir = model(&tiny_config(json!({})), &tensors);
        let (model, params) = load(dir.path(), DType::F64);
        assert_eq!(model.layout().specs().len(), tensors.len());
        for tensor in &tensors {
            let spec = model.layout().get(&tensor.name).unwrap();
            assert_eq!(spec.span.shape.dims(), tensor.dims);
            let got = params.view(&spec.span).host::<f64>();
            let want: Vec<f64> = match dtype {
                Dtype::F32 => {
                    tensor.bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
                }
                .collect(),
                Dtype::F16 => tensor
                    .bytes
                    .chunks(2)
                    .map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f64())
                    .collect(),
                _ => tensor
                    .bytes
                    .chunks(2)
                    .map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f64())
                    .collect(),
            };
            assert_eq!(got, want, "{}", tensor.name);
        }
    }
}

#[test]
fn every_family_and_trait_has_the_names_of_transformers() {
    let mut biased = tiny_tensors(Dtype::F32);
    for layer in 0..2 {
        for (part, dims) in [
            ("self_attn.q_proj.bias", 8),
            ("self_attn.k_proj.bias", 4),
            ("self_attn.v_proj.bias", 4),
            ("self_attn.o_proj.bias", 8),
            ("mlp.gate_proj.bias", 5),
            ("mlp.up_proj.bias", 5),
            ("mlp.down_proj.bias", 8),
        ] {
            let name = format!("model.layers.{layer}.{part}");
            biased.push(random(&name, Dtype::F32, &[dims]));
        }
    }
    let config = tiny_config(json!({"attention_bias": true, "mlp_bias": true}));
    ModelDir::open(model(&config, &biased).path()).unwrap();

    let mut qwen2 = biased.clone();
    qwen2.retain(|t| {
        !t.name.ends_with("o_proj.bias") && !t.name.contains("mlp") || t.dims.len() > 1
    });
    qwen2.retain(|t| t.name != "lm_head.weight");
    let config = tiny_config(json!({"architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2", "tie_word_embeddings": true}));
    ModelDir::open(model(&config, &qwen2).path()).unwrap();

    let mut qwen3 = tiny_tensors(Dtype::F32);
    for layer in 0..2 {
        for part in ["q_norm", "k_norm"] {
            let name = format!("model.layers.{layer}.self_attn.{part}.weight");
            qwen3.push(random(&name, Dtype::F32, &[2]));
        }
    }
    let config = tiny_config(json!({"architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3", "head_dim": 2}));
    ModelDir::open(model(&config, &qwen3).path()).unwrap();
}

#[test]
fn types_stay_as_they_were_tensor_by_tensor() {
    let kinds = [Dtype::F32, Dtype::F16, Dtype::BF16];
    let mut tensors = tiny_tensors(Dtype::F32);
    for (i, tensor) in tensors.iter_mut().enumerate() {
        *tensor = random(&tensor.name, kinds[i % 3], &tensor.dims);
    }
    let dir = model(&tiny_config(json!({})), &tensors);
    let (model, params) = load(dir.path(), DType::F32);
    let out = dir.path().join("out");
    save(&model, &params, &out);
    let name = "model.safetensors";
    assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(dir.path().join(name)).unwrap());
}

#[test]
fn a_changed_parameter_is_written_under_its_name_and_nothing_else_changes() {
    let dir = model(&tiny_config(json!({})), &tiny_tensors(Dtype::F16));
    let (model, mut params) = load(dir.path(), DType::F32);
    let name = "model.layers.1.self_attn.v_proj.weight";
    let span = model.layout().get(name).unwrap().span;
    params.view_mut(&span).host::<f32>()[3] = 1.0 + 2.0f32.powi(-11) + 1e-6;
    let out = dir.path().join("out");
    save(&model, &params, &out);
    for tensor in tiny_tensors(Dtype::F16) {
        let mut want = tensor.bytes;
        if tensor.name == name {
            want[6..8].copy_from_slice(&0x3c01u16.to_le_bytes());
        }
        assert_eq!(stored(&out, &tensor.name), want, "{}", tensor.name);
    }
}

#[test]
fn everything_wrong_with_the_tensors_is_told_at_once() {
    let mut tensors = tiny_tensors(Dtype::F32);
    tensors.retain(|t| t.name != "model.norm.weight" && t.name != "lm_head.weight");
    for tensor in &mut tensors {
        *tensor = match tensor.name.as_str() {
            "model.embed_tokens.weight" => random(&tensor.name, Dtype::F32, &[8, 11]),
            "model.layers.0.mlp.up_proj.weight" => random(&tensor.name, Dtype::F8_E4M3, &[5, 8]),
            "model.layers.1.mlp.up_proj.weight" => random(&tensor.name, Dtype::F64, &[5, 8]),
            _ => tensor.clone(),
        };
    }
    tensors.push(random("model.layers.2.mlp.up_proj.weight", Dtype::F32, &[5, 8]));
    tensors.push(random("model.layers.0.self_attn.q_proj.bias", Dtype::F32, &[8]));
    let dir = model(&tiny_config(json!({})), &tensors);
    assert_refused(
        ModelDir::open(dir.path()),
        &[
            "no `model.norm.weight`",
            "no `lm_head.weight`",
            "`model.embed_tokens.weight` of shape [8, 11] instead of [11, 8]",
            "`model.layers.0.mlp.up_proj.weight` in F8_E4M3 instead of F32, F16 or BF16",
            "`model.layers.1.mlp.up_proj.weight` in F64 instead of",
            "an unknown `model.layers.2.mlp.up_proj.weight`",
            "an unknown `model.layers.0.self_attn.q_proj.bias`",
        ],
    );
    let dir = model(&tiny_config(json!({})), &tensors[..1]);
    assert_refused(ModelDir::open(dir.path()), &["and 13 more"]);
}

#[test]
fn a_head_stored_beside_a_tied_embedding_must_be_its_copy_and_stays_one() {
    let config = tiny_config(json!({"tie_word_embeddings": true}));
    let mut tensors = tiny_tensors(Dtype::BF16);
    let embedding = tensors[0].clone();
    assert_refused(
        ModelDir::open(model(&config, &tensors).path()),
        &["`lm_head.weight`", "`tie_word_embeddings` is true", "other values", "to false"],
    );
    let head = tensors.iter_mut().find(|t| t.name == "lm_head.weight").unwrap();
    *head = Stored { name: head.name.clone(), ..embedding.clone() };
    let dir = model(&config, &tensors);
    let (model, mut params) = load(dir.path(), DType::F32);
    params.view_mut(model.layout().embedding()).host::<f32>()[5] = 0.5;
    let out = dir.path().join("out");
    save(&model, &params, &out);
    let head = stored(&out, "lm_head.weight");
    assert_ne!(head, embedding.bytes);
    assert_eq!(head, stored(&out, "model.embed_tokens.weight"));
    // Another type is another tensor, whatever its values.
    let position = tensors.iter().position(|t| t.name == "lm_head.weight").unwrap();
    tensors[position] = random("lm_head.weight", Dtype::F32, &[11, 8]);
    let dir = super::model(&config, &tensors);
    assert_refused(ModelDir::open(dir.path()), &["F32 [11, 8] instead of BF16 [11, 8]"]);
}

#[test]
fn stored_rotary_frequencies_are_ignored_and_kept() {
    let mut tensors = tiny_tensors(Dtype::F16);
    let name = "model.layers.0.self_attn.rotary_emb.inv_freq";
    tensors.push(random(name, Dtype::F32, &[1]));
    let dir = model(&tiny_config(json!({})), &tensors);
    let (model, params) = load(dir.path(), DType::F32);
    let out = dir.path().join("out");
    save(&model, &params, &out);
    assert_eq!(stored(&out, name), random(name, Dtype::F32, &[1]).bytes);
}

#[test]
fn weights_that_are_not_finite_are_refused_by_element() {
    for (bits, shown) in [(0x7e00u16, "NaN"), (0x7c00, "inf"), (0xfc00, "-inf")] {
        let mut tensors = tiny_tensors(Dtype::F16);
        tensors[0].bytes[10..12].copy_from_slice(&bits.to_le_bytes());
        let dir = model(&tiny_config(json!({})), &tensors);
        let result = ModelDir::open(dir.path()).unwrap().load(&Device::Cpu, DType::F32);
        let place = "`model.embed_tokens.weight`, element 5";
        assert_refused(result, &["model.safetensors", place, "a finite f32", shown]);
    }
}

#[test]
fn a_value_beyond_the_range_of_its_file_is_refused_and_nothing_appears() {
    let dir = model(&tiny_config(json!({})), &tiny_tensors(Dtype::F16));
    let (model, mut params) = load(dir.path(), DType::F32);
    let span = model.layout().get("model.layers.1.mlp.up_proj.weight").unwrap().span;
    params.view_mut(&span).host::<f32>()[17] = 70_000.0;
    let before = listing(dir.path());
    let staged = StagedDir::new(&dir.path().join("out")).unwrap();
    let error = model.save(&params, &staged).unwrap_err();
    assert_eq!(error.exit_code(), 6, "{error}");
    let place = "`model.layers.1.mlp.up_proj.weight`, element 17";
    for part in [place, "more than F16 can hold", "7e4", "BF16"] {
        assert!(error.to_string().contains(part), "no {part:?} in: {error}");
    }
    drop(staged);
    assert_eq!(listing(dir.path()), before);
}

#[test]
fn a_disk_that_fills_up_while_saving_is_an_error_and_nothing_appears() {
    let (model, params) = load(&glassllm(), DType::F32);
    for name in ["model.safetensors", "config.json", "tokenizer.json", "LICENSE"] {
        let dir = tempfile::tempdir().unwrap();
        let staged = StagedDir::new(&dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("/dev/full", staged.path().join(name)).unwrap();
        let error = model.save(&params, &staged).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(name)), "{error:?}");
        assert!(error.to_string().contains("No space left"), "{error}");
        drop(staged);
        assert!(listing(dir.path()).is_empty());
    }
}

#[test]
fn the_files_beside_the_weights_are_copied_and_no_others() {
    let dir = model(&tiny_config(json!({"unknown_to_hooke": [1, 2]})), &tiny_tensors(Dtype::F32));
    let copied = [
        "LICENSE.txt",
        "NOTICE",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "generation_config.json",
        "license-of-the-data.md",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    ];
    for (i, name) in copied.iter().enumerate() {
        if *name != "config.json" {
            fs::write(dir.path().join(name), vec![i as u8; i]).unwrap();
        }
    }
    for name in ["README.md", "optimizer.pt", "pytorch_model.bin", ".gitattributes"] {
        fs::write(dir.path().join(name), "not to be copied").unwrap();
    }
    fs::create_dir(dir.path().join("LICENSES")).unwrap();
    let (model, params) = load(dir.path(), DType::F32);
    let out = dir.path().join("out");
    save(&model, &params, &out);
    let mut want = copied.to_vec();
    want.push("model.safetensors");
    want.sort();
    assert_eq!(listing(&out), want);
    for name in copied {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(dir.path().join(name)).unwrap());
    }
}

#[test]
fn what_is_not_a_model_directory_is_refused_by_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    assert_refused(ModelDir::open(&path.join("absent")), &["absent", "nothing of that name"]);
    fs::write(path.join("model.gguf"), "GGUF").unwrap();
    let file = ModelDir::open(&path.join("model.gguf"));
    assert_refused(file, &["model.gguf", "a directory with config.json", "a file"]);
    let below = ModelDir::open(&path.join("model.gguf/x"));
    assert_refused(below, &["nothing of that name"]);
    assert_refused(ModelDir::open(path), &["config.json", "a file", "nothing of that name"]);
    fs::create_dir(path.join("config.json")).unwrap();
    assert_refused(ModelDir::open(path), &["config.json", "a directory"]);
    fs::remove_dir(path.join("config.json")).unwrap();
    make_fifo(&path.join("config.json"));
    assert_refused(ModelDir::open(path), &["config.json", "not a regular file"]);
    fs::remove_file(path.join("config.json")).unwrap();
    fs::write(path.join("config.json"), "").unwrap();
    assert_refused(ModelDir::open(path), &["config.json", "valid JSON"]);
    write_config(path, &tiny_config(json!({"model_type": "gpt2"})));
    assert_refused(ModelDir::open(path), &["config.json", "`model_type`", "gpt2"]);
    write_config(path, &tiny_config(json!({})));
    let either = "model.safetensors or model.safetensors.index.json";
    assert_refused(ModelDir::open(path), &[either, "neither"]);
    fs::write(path.join("adapter_model.safetensors"), "").unwrap();
    assert_refused(ModelDir::open(path), &[either, "an adapter only"]);
    fs::write(path.join("pytorch_model.bin"), "").unwrap();
    assert_refused(ModelDir::open(path), &[either, "pickle", "save_pretrained"]);
    fs::write(path.join("model.safetensors"), "").unwrap();
    assert_refused(ModelDir::open(path), &["model.safetensors", "0 bytes"]);
    write_file(&path.join("model.safetensors"), &[], &[("format", "pt")]);
    assert_refused(ModelDir::open(path), &["no `model.embed_tokens.weight`"]);
}

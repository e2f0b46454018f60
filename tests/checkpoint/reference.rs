//! Files of reference numbers.

use super::{Stored, assert_refused, write_file};
use hooke::checkpoint::reference::{Reference, ReferenceOptimizer};
use hooke::error::Result;
use hooke::tensor::View;
use safetensors::Dtype;

const METADATA: [(&str, &str); 9] = [
    ("hooke_reference", "1"),
    ("torch", "2.9.0"),
    ("learning_rate", "0.001"),
    ("beta1", "0.9"),
    ("beta2", "0.95"),
    ("epsilon", "1e-08"),
    ("weight_decay", "0.01"),
    ("max_grad_norm", "1.0"),
    ("steps", "2"),
];

fn i32s(name: &str, values: &[i32]) -> Stored {
    let bytes = bytemuck::cast_slice(values).to_vec();
    Stored { name: name.into(), dtype: Dtype::I32, dims: vec![values.len()], bytes }
}

fn f32s(name: &str, dims: &[usize], start: f32) -> Stored {
    let n = dims.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| start + i as f32).collect();
    let bytes = bytemuck::cast_slice(&values).to_vec();
    Stored { name: name.into(), dtype: Dtype::F32, dims: dims.into(), bytes }
}

fn f64s(name: &str, values: &[f64]) -> Stored {
    let bytes = bytemuck::cast_slice(values).to_vec();
    Stored { name: name.into(), dtype: Dtype::F64, dims: vec![values.len()], bytes }
}

/// T 4 in two documents, C 2, V 3, one layer.
fn tensors() -> Vec<Stored> {
    vec![
        i32s("tokens", &[1, 0, 2, 1]),
        i32s("cu_seqlens", &[0, 3, 4]),
        i32s("targets", &[0, 2, -1, -1]),
        f32s("hidden/0", &[4, 2], 0.0),
        f32s("hidden/1", &[4, 2], 10.0),
        f32s("hidden/final", &[4, 2], 20.0),
        f32s("logits#every=5", &[3], 30.0),
        f32s("nll", &[4], 0.5),
        f64s("loss", &[1.25]),
        f32s("grad/model.norm.weight", &[2], 1.0),
        f32s("grad/lm_head.weight#every=7", &[1], 2.0),
        f64s("adamw/losses", &[1.25, 1.0]),
        f64s("adamw/grad_norms", &[3.0, 2.0]),
        f32s("weight/model.norm.weight", &[2], 4.0),
    ]
}

fn open(tensors: &[Stored], metadata: &[(&str, &str)]) -> Result<Reference> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reference.safetensors");
    write_file(&path, tensors, metadata);
    Reference::open(&path)
}

#[test]
fn everything_that_was_stored_is_given_back() {
    let reference = open(&tensors(), &METADATA).unwrap();
    assert_eq!(reference.tokens(), [1, 0, 2, 1]);
    assert_eq!(reference.cu_seqlens(), [0, 3, 4]);
    assert_eq!(reference.targets(), [0, 2, -1, -1]);
    assert_eq!(reference.num_layers(), 1);
    assert_eq!(reference.metadata("torch"), Some("2.9.0"));
    assert_eq!(reference.metadata("transformers"), None);
    assert_eq!(reference.loss().unwrap(), 1.25);
    assert_eq!(reference.losses().unwrap(), [1.25, 1.0]);
    assert_eq!(reference.grad_norms().unwrap(), [3.0, 2.0]);
    let mut gradients: Vec<_> = reference.names("grad/").collect();
    gradients.sort();
    assert_eq!(gradients, ["lm_head.weight", "model.norm.weight"]);
    assert_eq!(reference.names("weight/").collect::<Vec<_>>(), ["model.norm.weight"]);
    let want = ReferenceOptimizer {
        learning_rate: 0.001,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        steps: 2,
    };
    assert_eq!(*reference.optimizer(), want);
}

#[test]
fn computed_tensors_are_sampled_as_the_stored_ones_were() {
    let reference = open(&tensors(), &METADATA).unwrap();
    let computed: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let whole = reference.pair("hidden/1", View::from_host(&computed[..8], [4, 2])).unwrap();
    assert_eq!((whole.got.len(), whole.want[7], whole.every), (8, 17.0, 1));
    let sampled = reference.pair("logits", View::from_host(&computed, [4, 3])).unwrap();
    assert_eq!(sampled.got, [0.0, 5.0, 10.0]);
    assert_eq!(sampled.want, [30.0, 31.0, 32.0]);
    assert_eq!(sampled.every, 5);
    let six = View::from_host(&computed[..6], [3, 2]);
    let refused = |name, view| assert_refused(reference.pair(name, view), &[name, "of shape"]);
    refused("grad/model.norm.weight", View::from_host(&computed[..2], [2, 1]));
    refused("hidden/1", View::from_host(&computed[..8], [2, 4]));
    refused("hidden/1", six);
    refused("logits", View::from_host(&computed[..10], [5, 2]));
    let absent = reference.pair("grad/model.embed_tokens.weight", six);
    assert_refused(absent, &["`grad/model.embed_tokens.weight`", "a tensor of that name", "none"]);
}

#[test]
fn files_that_are_no_reference_are_refused_with_the_reason() {
    let replace = |tensor: Stored| {
        let name = tensor.name.clone();
        let mut all = tensors();
        all.retain(|t| t.name.split('#').next() != name.split('#').next());
        all.push(tensor);
        all
    };
    let without = |name: &str| {
        let mut all = tensors();
        all.retain(|t| t.name.split('#').next() != Some(name));
        all
    };
    let with = |tensor: Stored| tensors().into_iter().chain([tensor]).collect::<Vec<_>>();
    for (tensors, parts) in [
        (without("tokens"), ["`tokens`", "a tensor of that name"]),
        (without("cu_seqlens"), ["`cu_seqlens`", "a tensor of that name"]),
        (without("targets"), ["`targets`", "a tensor of that name"]),
        (without("hidden/0"), ["`hidden/0`", "none"]),
        (without("hidden/final"), ["`hidden/final`", "none"]),
        (without("logits"), ["`logits`", "none"]),
        (without("nll"), ["`nll`", "none"]),
        (without("loss"), ["`loss`", "none"]),
        (without("adamw/losses"), ["`adamw/losses`", "none"]),
        (without("adamw/grad_norms"), ["`adamw/grad_norms`", "none"]),
        (with(f32s("hidden/3", &[4, 2], 0.0)), ["layers 0 to 2 without gaps", "none of layer 2"]),
        (with(f32s("logits#every=7", &[2], 0.0)), ["`logits`", "another sample"]),
        (with(f32s("logits", &[4, 3], 0.0)), ["`logits`", "another sample"]),
        (with(f32s("x#every=", &[2], 0.0)), ["`x#every=`", "k of at least 2"]),
        (with(f32s("x#every=1", &[2], 0.0)), ["`x#every=1`", "k of at least 2"]),
        (with(f32s("x#every=-3", &[2], 0.0)), ["`x#every=-3`", "k of at least 2"]),
        (with(f32s("x#every=3", &[2, 2], 0.0)), ["`x#every=3`", "rank 1"]),
        (replace(f32s("tokens", &[4], 0.0)), ["`tokens`", "F32 of shape [4]"]),
        (replace(i32s("tokens", &[])), ["`tokens`", "token ids"]),
        (replace(i32s("tokens", &[1, -2, 0, 0])), ["`tokens`", "negative"]),
        (replace(i32s("cu_seqlens", &[])), ["`cu_seqlens`", "from 0 to 4"]),
        (replace(i32s("cu_seqlens", &[0])), ["`cu_seqlens`", "[0]"]),
        (replace(i32s("cu_seqlens", &[1, 4])), ["`cu_seqlens`", "[1, 4]"]),
        (replace(i32s("cu_seqlens", &[0, 3])), ["`cu_seqlens`", "[0, 3]"]),
        (replace(i32s("cu_seqlens", &[0, 2, 2, 4])), ["`cu_seqlens`", "increasing"]),
        (replace(i32s("cu_seqlens", &[0, -4])), ["`cu_seqlens`", "[0, -4]"]),
        (replace(i32s("targets", &[0, 2, -1])), ["`targets`", "4 ids"]),
        (replace(i32s("targets", &[0, 2, -2, -1])), ["`targets`", "-1 where ignored"]),
        (replace(f32s("nll", &[3], 0.0)), ["`nll`", "shape [4]"]),
        (replace(f64s("loss", &[1.0, 2.0])), ["`loss`", "shape [1]"]),
        (replace(f64s("adamw/losses", &[1.0])), ["`adamw/losses`", "shape [2]"]),
        (replace(f64s("adamw/grad_norms", &[])), ["`adamw/grad_norms`", "shape [2]"]),
        (replace(f32s("nll#every=2", &[4], 0.0)), ["`nll`", "nll#every=2"]),
    ] {
        assert_refused(open(&tensors, &METADATA), &parts);
    }
}

#[test]
fn metadata_that_does_not_fit_is_refused_by_key() {
    let with = |key: &str, value: &'static str| {
        let changed = METADATA.iter().map(|&(k, v)| if k == key { (k, value) } else { (k, v) });
        open(&tensors(), &changed.collect::<Vec<_>>())
    };
    assert_refused(with("hooke_reference", "2"), &["`hooke_reference`", "tools/golden.py"]);
    for key in ["learning_rate", "beta1", "beta2", "epsilon", "weight_decay", "max_grad_norm"] {
        for value in ["", "x", "NaN", "inf", "-1", "1e999"] {
            assert_refused(with(key, value), &[key, "finite number", &format!("`{value}`")]);
        }
    }
    for value in ["", "-1", "1.5", "x"] {
        assert_refused(with("steps", value), &["`steps`", "a number of steps"]);
    }
    for (removed, _) in METADATA.iter().filter(|(key, _)| *key != "torch") {
        let mut metadata = METADATA.to_vec();
        metadata.retain(|(key, _)| key != removed);
        assert_refused(open(&tensors(), &metadata), &[removed, "none", "tools/golden.py"]);
    }
}

#[test]
fn numbers_that_are_not_finite_or_not_numbers_are_refused_when_asked_for() {
    let mut all = tensors();
    for tensor in &mut all {
        match tensor.name.as_str() {
            "loss" => *tensor = f64s("loss", &[f64::NAN]),
            "hidden/1" => tensor.bytes[8..12].copy_from_slice(&f32::INFINITY.to_le_bytes()),
            "hidden/0" => *tensor = i32s("hidden/0", &[0; 8]),
            _ => {}
        }
    }
    let reference = open(&all, &METADATA).unwrap();
    assert_refused(reference.loss(), &["`loss`", "finite numbers", "NaN at element 0"]);
    let view = View::from_host(&[0.0f32; 8], [4, 2]);
    assert_refused(reference.pair("hidden/1", view), &["`hidden/1`", "inf at element 2"]);
    let view = View::from_host(&[0.0f32; 8], [8]);
    assert_refused(reference.pair("hidden/0", view), &["`hidden/0`", "floating-point", "I32"]);
}

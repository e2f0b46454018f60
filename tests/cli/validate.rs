//! `hooke validate model`.

use crate::support::command::{Ran, arg, hooke, keys};
use crate::support::model_files::{change_tensor, copy_dir, golden};
use serde_json::Value;
use std::path::Path;

fn validate(model: &Path, json: bool) -> Ran {
    let reference = arg(&golden("qwen3/reference.safetensors"));
    let mut args = vec!["validate".into(), "model".into(), "--model".into(), arg(model)];
    args.extend(["--reference".into(), reference]);
    args.extend(json.then(|| "--json".into()));
    hooke(&args)
}

fn names_where(rows: &[Value], passed: bool) -> Vec<&str> {
    let rows = rows.iter().filter(|row| row["passed"] == passed);
    rows.map(|row| row["name"].as_str().unwrap()).collect()
}

#[test]
fn the_model_of_the_reference_passes_tensor_by_tensor() {
    let ran = validate(&golden("qwen3"), true).ok();
    let rows = ran.json();
    for row in &rows {
        let want = [
            "name",
            "max_abs",
            "max_rel",
            "norm_rel",
            "cosine",
            "worst_index",
            "tolerance",
            "passed",
        ];
        assert_eq!(keys(row), want);
        assert_eq!(row["passed"], true, "{row}");
        assert!(row["cosine"].as_f64().unwrap() > 0.999999, "{row}");
    }
    let names = names_where(&rows, true);
    for name in ["hidden/0", "hidden/1", "hidden/2", "hidden/final", "logits", "nll", "loss"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    // Two layers of 4 norms and 7 matrices, embedding and last norm; the head is tied.
    assert_eq!((count("grad/"), count("weight/"), count("adamw/")), (24, 24, 2));
    assert!(ran.stderr.contains(&format!("all {} tensors", rows.len())), "{}", ran.stderr);

    let table = validate(&golden("qwen3"), false).ok().stdout;
    assert_eq!(table.lines().count(), rows.len() + 1);
    for heading in ["tensor", "max abs", "max rel", "1-cosine", "worst at", "bound", "verdict"] {
        assert!(table.lines().next().unwrap().contains(heading), "{heading}");
    }
    assert!(table.lines().skip(1).all(|line| line.starts_with("ok ")), "{table}");
}

#[test]
fn one_changed_weight_fails_from_its_layer_on_and_exits_with_8() {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&golden("qwen3"), dir.path());
    let name = "model.layers.1.mlp.up_proj.weight";
    change_tensor(&dir.path().join("model.safetensors"), name, |bytes| {
        let first = f32::from_le_bytes(bytes[..4].try_into().unwrap());
        bytes[..4].copy_from_slice(&(first + 0.05).to_le_bytes());
    });
    let ran = validate(dir.path(), true).failed(8, &["tensors are outside their tolerance"]);
    let rows = ran.json();
    let (passed, failed) = (names_where(&rows, true), names_where(&rows, false));
    assert!(ran.stderr.contains(&format!("{} of {} tensors", failed.len(), rows.len())));
    for name in ["hidden/0", "hidden/1"] {
        assert!(passed.contains(&name), "{name} comes before the change: {failed:?}");
    }
    for name in ["hidden/2", "hidden/final", "logits", "nll", "grad/model.embed_tokens.weight"] {
        assert!(failed.contains(&name), "{name} comes after the change: {passed:?}");
    }
    let table = validate(dir.path(), false).failed(8, &[]).stdout;
    assert_eq!(table.lines().filter(|line| line.starts_with("FAILED ")).count(), failed.len());
}

#[test]
fn a_reference_of_another_model_is_refused() {
    for (model, reference, part) in [
        ("qwen3", "qwen2", "grad/"),
        ("llama", "glassllm-en", "ids below vocab_size 101"),
        ("llama", "llama-ffn-341", "the 2 layers of the model"),
        ("llama", "llama-tied-head-dim", "elements of a tensor of shape"),
    ] {
        let reference = golden(&format!("{reference}/reference.safetensors"));
        let (model, reference) = (arg(&golden(model)), arg(&reference));
        let args = ["validate", "model", "--model", &model, "--reference", &reference, "--json"];
        let ran = hooke(&args).failed(4, &["reference.safetensors: ", part, "expected", "got"]);
        assert_eq!(ran.stdout, "", "nothing is reported of what cannot be compared");
    }
}

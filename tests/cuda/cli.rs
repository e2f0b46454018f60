//! The binary itself on the stand-in driver, found by `LD_LIBRARY_PATH` as the real one would be.

use crate::support::{data, embedded_model};
use std::path::Path;
use std::process::{Command, Output};

/// Runs `hooke` with the stand-in in place of the driver.
fn hooke(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let library = Path::new(env!("HOOKE_EMU_LIBCUDA")).parent().unwrap();
    Command::new(env!("CARGO_BIN_EXE_hooke"))
        .args(args)
        .env("LD_LIBRARY_PATH", library)
        .env("HOOKE_EMU_LEAKS", "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    both.concat()
}

const CLEAN: &str =
    "contexts 0 allocations 0 pinned 0 events 0 streams 0 modules 0 graphs 0 queued 0";

#[test]
fn the_doctor_finds_every_family_of_kernels_in_order() {
    let output = hooke(&["doctor"], &[]);
    let text = text(&output);
    assert!(output.status.success() && text.contains(CLEAN), "{text}");
    assert!(text.contains("hooke emulated device") && text.contains("driver: CUDA 13.0"), "{text}");
    assert_eq!(text.matches(" ok ").count(), 16, "{text}");
    let json = hooke(&["doctor", "--json"], &[]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["checks"].as_array().unwrap().len(), 16);
    assert_eq!(report["gpu"]["compute_capability"], "9.0");
}

#[test]
fn a_machine_that_cannot_be_used_is_explained_with_exit_code_5() {
    for (variable, value, expected) in [
        ("HOOKE_EMU_NO_DEVICE", "1", "sees no GPU"),
        ("HOOKE_EMU_DRIVER_VERSION", "12040", "too old: it supports CUDA 12.4"),
        ("HOOKE_EMU_CC", "75", "has compute capability 7.5, hooke needs 8.0"),
        ("HOOKE_EMU_FAIL", "9:999", "CUDA_ERROR_UNKNOWN"),
    ] {
        for command in ["doctor", "generate"] {
            let model = embedded_model();
            let generate =
                ["--model", model.to_str().unwrap(), "--prompt", "Alice", "--device", "cuda"];
            let mut args = vec![command];
            if command == "generate" {
                args.extend(generate);
            }
            let output = hooke(&args, &[(variable, value)]);
            let text = text(&output);
            assert_eq!(output.status.code(), Some(5), "{variable}, {command}: {text}");
            assert!(text.contains(expected) && !text.contains("panicked"), "{variable}: {text}");
        }
    }
    let output = hooke(&["doctor", "--gpu", "3"], &[]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output).contains("there is no GPU 3: 1 found"));
}

#[test]
fn auto_says_what_it_chose_and_why() {
    let model = embedded_model();
    let args = [
        "generate",
        "--model",
        model.to_str().unwrap(),
        "--prompt",
        "Alice",
        "--max-new-tokens",
        "1",
    ];
    let output = hooke(&args, &[("HOOKE_EMU_NO_DEVICE", "1")]);
    let without = text(&output);
    assert!(output.status.success(), "{without}");
    let reason = "cpu (--device auto: the NVIDIA driver sees no GPU)";
    assert!(without.contains(reason), "{without}");
    let output = hooke(&args, &[]);
    let with = text(&output);
    assert!(output.status.success() && with.contains(CLEAN), "{with}");
    assert!(with.contains("cuda:0, hooke emulated device"), "{with}");
    assert!(with.contains("(--device auto)"), "{with}");
}

/// Loss of each step in `metrics.jsonl`.
fn losses(dir: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["loss"].as_f64().unwrap()
    };
    text.lines().map(loss).collect()
}

#[test]
fn finetune_trains_the_embedded_model_as_the_cpu_does() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"text\": \"Alice was very tired\"}\n").unwrap();
    let model = embedded_model();
    let run = |device: &str| {
        let out = dir.path().join(device.replace(':', "-"));
        let args = [
            ["finetune", "--device", device],
            ["--model", model.to_str().unwrap(), "--max-steps"],
            ["2", "--train", rows.to_str().unwrap()],
            ["--learning-rate", "1e-3", "--output-dir"],
        ];
        let args: Vec<&str> = args.concat().into_iter().chain([out.to_str().unwrap()]).collect();
        let output = hooke(&args, &[]);
        assert!(output.status.success(), "{device}: {}", text(&output));
        (out, text(&output))
    };
    let (cpu, _) = run("cpu");
    let (gpu, text) = run("cuda:0");
    assert!(text.contains(CLEAN), "{text}");
    // The plan was printed before the first step.
    assert!(text.contains("activations") && text.contains("scratch"), "{text}");
    for (got, want) in losses(&gpu).iter().zip(&losses(&cpu)) {
        // Four layers of roundings to 8 bits; see tests/cuda/model.rs.
        assert!((got - want).abs() < 1e-2 * want, "{got} for {want}");
    }
    let size = |dir: &Path| std::fs::metadata(dir.join("model/model.safetensors")).unwrap().len();
    assert_eq!(size(&gpu), size(&cpu));
}

#[test]
fn the_binary_fails_cleanly_whichever_call_fails() {
    for call in (1..900).step_by(53) {
        let output = hooke(&["doctor"], &[("HOOKE_EMU_FAIL", &format!("{call}:719"))]);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(5), "call {call}: {text}");
        assert!(text.contains("error: device: ") && !text.contains("panicked"), "{text}");
    }
}

#[test]
fn states_of_the_optimizer_that_only_a_gpu_has_are_refused_on_the_cpu() {
    let (model, rows) = (embedded_model(), data("movie-snippets/train.jsonl"));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = [
        ["finetune", "--device", "cpu"],
        ["--model", model.to_str().unwrap(), "--train"],
        [rows.to_str().unwrap(), "--optim-states", "8bit"],
    ];
    let args = args.concat();
    let args: Vec<&str> = args.into_iter().chain(["--output-dir", out.to_str().unwrap()]).collect();
    let output = hooke(&args, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--optim-states: expected f32"), "{}", text(&output));
    assert!(!out.exists());
}

//! Disks that fill up: exit 7, whole rows, whole models.
//!
//! Twice each: with a limit on the size of a file, which any user can set, and on a real file
//! system that is full, where one may be mounted (in a mount namespace of the command's own, so
//! that nothing outlives the test).

use super::Bench;
use crate::support::command::{Ran, arg, command, finish, json_lines, listing};
use crate::support::embedded_model;
use crate::support::model_files::{chat_model, copy_dir};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the binary so that no file can grow beyond `blocks` of 512 bytes.
fn with_small_files(args: &[String], blocks: usize) -> Ran {
    // Ignored, the signal becomes an error of the write that goes too far.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_hooke")]).args(args);
    finish(shell.stdin(Stdio::null()).output().unwrap())
}

/// Runs the binary with a file system of `kib` KiB mounted on `dir`; afterwards `dir` holds what
/// was there. `None` where it may not be mounted.
fn on_small_disk(args: &[String], dir: &Path, kib: usize) -> Option<Ran> {
    let kept = tempfile::tempdir().unwrap();
    let namespaces = ["--mount", "--map-root-user"];
    let probe = Command::new("unshare")
        .args(namespaces)
        .args(["mount", "-t", "tmpfs", "tmpfs"])
        .arg(dir)
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a file system cannot be mounted here");
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o size={kib}k tmpfs {0} || exit 99; \"$@\"; code=$?; \
         cp -a {0}/. {1}; exit $code",
        arg(dir),
        arg(kept.path())
    );
    let mut shell = Command::new("unshare");
    shell.args(namespaces).args(["sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_hooke")]);
    let ran = finish(shell.args(args).stdin(Stdio::null()).output().unwrap());
    Command::new("cp").arg("-a").arg(kept.path().join(".")).arg(dir).status().unwrap();
    Some(ran)
}

/// Metrics without a model: whole rows, at least one, and nothing else.
#[track_caller]
fn assert_rows_only(output: &Path) -> usize {
    assert_eq!(listing(output), ["metrics.jsonl"]);
    let rows = json_lines(&fs::read_to_string(output.join("metrics.jsonl")).unwrap());
    assert!(!rows.is_empty());
    assert!(rows.iter().enumerate().all(|(i, row)| row["step"] == i + 1));
    rows.len()
}

#[test]
fn a_disk_that_fills_up_while_saving_leaves_the_metrics_and_no_model() {
    // The weights take 1.7 MB; metrics and tokenizer fit.
    let flags = ["--max-steps", "2"];
    let bench = Bench::new();
    let ran = with_small_files(&bench.args(&embedded_model(), &flags), 1024);
    ran.failed(7, &["cannot write ", "model.safetensors", "File too large"]);
    assert_eq!(assert_rows_only(&bench.output()), 2);
    assert_eq!(listing(&bench.outputs()), ["run"]);

    let bench = Bench::new();
    let args = bench.args(&embedded_model(), &flags);
    if let Some(ran) = on_small_disk(&args, &bench.outputs(), 512) {
        ran.failed(7, &["cannot write ", "No space left on device"]);
        assert_eq!(assert_rows_only(&bench.output()), 2);
        assert_eq!(listing(&bench.outputs()), ["run"]);
    }
}

#[test]
fn a_disk_that_fills_up_while_training_leaves_whole_rows() {
    // A row takes about 150 bytes, so neither limit falls between two rows.
    let model = chat_model("qwen");
    let flags = ["--max-steps", "100", "--logging-steps", "100"];
    let bench = Bench::new();
    let ran = with_small_files(&bench.args(model.path(), &flags), 2);
    ran.failed(7, &["cannot write ", "metrics.jsonl", "File too large"]);
    let rows = assert_rows_only(&bench.output());
    assert!((4..20).contains(&rows), "{rows} rows in 1,024 bytes");

    let bench = Bench::new();
    let args = bench.args(model.path(), &flags);
    if let Some(ran) = on_small_disk(&args, &bench.outputs(), 4) {
        ran.failed(7, &["cannot write ", "metrics.jsonl", "No space left on device"]);
        let rows = assert_rows_only(&bench.output());
        assert!((15..60).contains(&rows), "{rows} rows in 4,096 bytes");
    }
}

#[test]
fn a_volume_may_be_the_output_directory_itself() {
    let bench = Bench::new();
    let model = chat_model("qwen");
    fs::create_dir(bench.output()).unwrap();
    let args = bench.args(model.path(), &["--max-steps", "1"]);
    if let Some(ran) = on_small_disk(&args, &bench.output(), 4096) {
        ran.ok();
        assert_eq!(listing(&bench.output()), ["metrics.jsonl", "model"]);
    }
}

#[test]
fn a_disk_that_is_read_only_is_refused_before_anything_is_computed() {
    let bench = Bench::new();
    let copy = bench.dir.path().join("model");
    copy_dir(&embedded_model(), &copy);
    let script = "mount -t tmpfs -o ro tmpfs \"$0\" || exit 99; exec \"$@\"";
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--map-root-user", "sh", "-c", script]).arg(bench.outputs());
    shell.arg(command::<&str>(&[]).get_program()).args(bench.args(&copy, &[]));
    let Ok(output) = shell.stdin(Stdio::null()).output() else {
        eprintln!("skipped: there is no unshare here");
        return;
    };
    let ran = finish(output);
    if ran.code == Some(99) || ran.stderr.starts_with("unshare:") {
        eprintln!("skipped: a file system cannot be mounted here");
        return;
    }
    let ran = ran.failed(7, &["cannot create", &arg(&bench.output()), "Read-only file system"]);
    assert!(!ran.stderr.contains("step "), "{}", ran.stderr);
}

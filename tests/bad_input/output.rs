//! Output directories that cannot be used, and runs that are killed.

use super::Bench;
use crate::support::command::{arg, command, finish, hooke, json_lines, listing};
use crate::support::{data, embedded_model};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs with another output directory, which must be refused with exit 7.
#[track_caller]
fn refuses_output(bench: &Bench, output: &Path, parts: &[&str]) {
    let (model, train, output) = (arg(&embedded_model()), arg(&bench.train), arg(output));
    let args = ["finetune", "--model", &model, "--train", &train, "--output-dir", &output];
    assert_eq!(hooke(&args).failed(7, parts).stdout, "");
}

#[test]
fn an_output_directory_that_holds_something_is_left_as_it_is() {
    let bench = Bench::new();
    fs::create_dir(bench.output()).unwrap();
    for name in ["metrics.jsonl", ".hidden"] {
        let file = bench.output().join(name);
        fs::write(&file, "precious").unwrap();
        refuses_output(&bench, &bench.output(), &[&arg(&bench.output()), "is not empty", "fix: "]);
        assert_eq!(listing(&bench.output()), [name]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        fs::remove_file(file).unwrap();
    }
    refuses_output(&bench, &embedded_model(), &["is not empty"]);
}

#[test]
fn a_place_where_nothing_can_be_created_is_refused() {
    let bench = Bench::new();
    let file = bench.outputs().join("file");
    fs::write(&file, "x").unwrap();
    refuses_output(&bench, &file, &[&arg(&file), "Not a directory"]);
    refuses_output(&bench, &file.join("run"), &[&arg(&file), "Not a directory"]);
    refuses_output(&bench, Path::new("/proc/hooke/run"), &["cannot create /proc/hooke"]);
    refuses_output(&bench, &bench.outputs().join("x".repeat(300)), &["File name too long"]);
    let dangling = bench.outputs().join("link");
    std::os::unix::fs::symlink("/nonexistent/place", &dangling).unwrap();
    refuses_output(&bench, &dangling, &[&arg(&dangling)]);
    assert_eq!(listing(&bench.outputs()), ["file", "link"]);
}

/// The binary without root's right to ignore mode bits; `None` where that cannot be had.
fn unprivileged(args: &[String]) -> Option<Command> {
    let command = command(args);
    let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap());
    if uid != 0 {
        return Some(command);
    }
    let drop = ["--bounding-set=-all", "--inh-caps=-all", "--"];
    let works = Command::new("setpriv").args(drop).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut wrapped = Command::new("setpriv");
    wrapped.args(drop).arg(command.get_program()).args(args).stdin(Stdio::null());
    Some(wrapped)
}

#[test]
fn a_directory_without_the_right_to_write_is_refused() {
    let bench = Bench::new();
    let Some(mut command) = unprivileged(&bench.args(&embedded_model(), &[])) else {
        eprintln!("skipped: root's privileges cannot be dropped here");
        return;
    };
    fs::set_permissions(bench.outputs(), Permissions::from_mode(0o555)).unwrap();
    let ran = finish(command.output().unwrap());
    fs::set_permissions(bench.outputs(), Permissions::from_mode(0o755)).unwrap();
    ran.failed(7, &["cannot create", &arg(&bench.output()), "Permission denied"]);
    assert_eq!(listing(&bench.outputs()), [""; 0]);
    // An existing empty directory, likewise.
    fs::create_dir(bench.output()).unwrap();
    fs::set_permissions(bench.output(), Permissions::from_mode(0o555)).unwrap();
    let mut command = unprivileged(&bench.args(&embedded_model(), &[])).unwrap();
    let ran = finish(command.output().unwrap());
    ran.failed(7, &["cannot create", &arg(&bench.output()), "Permission denied"]);
    assert_eq!(listing(&bench.output()), [""; 0]);
}

#[test]
fn a_run_that_is_killed_leaves_whole_rows_and_no_model() {
    let bench = Bench::new();
    let mut args = bench.args(&embedded_model(), &["--num-train-epochs", "1000"]);
    args[4] = arg(&data("movie-snippets/train.jsonl"));
    let mut child = command(&args).stderr(Stdio::null()).spawn().unwrap();
    let metrics = bench.output().join("metrics.jsonl");
    let started = Instant::now();
    let read = || fs::read_to_string(&metrics).unwrap_or_default();
    while read().lines().count() < 3 {
        assert!(started.elapsed() < Duration::from_secs(50), "no three steps in 50 s");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(5));
        // Whole at any moment, not only at the end.
        json_lines(&read());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let rows = json_lines(&read());
    assert!(rows.len() >= 3);
    assert!(rows.iter().enumerate().all(|(i, row)| row["step"] == i + 1));
    assert_eq!(listing(&bench.output()), ["metrics.jsonl"]);
    assert_eq!(listing(&bench.outputs()), ["run"]);
}

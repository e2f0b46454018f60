//! The binary, run as a user runs it.

use std::path::Path;
use std::process::{Command, Output};

/// What one run of the binary left behind.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Results.
    pub stdout: String,
    /// Everything else but `device`.
    pub stderr: String,
    /// The line that names the device, in front of everything else that is not a result.
    pub device: Option<String>,
}

/// The binary of this build, in an environment that does not depend on the caller's.
pub fn command<S: AsRef<str>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hooke"));
    command.args(args.iter().map(AsRef::as_ref)).env("COLUMNS", "80");
    // Results must not depend on the number of threads, so a machine shared with other tests may
    // as well have few.
    command.env("HOOKE_THREADS", "2").stdin(std::process::Stdio::null());
    command
}

/// Runs to the end.
#[track_caller]
pub fn hooke<S: AsRef<str>>(args: &[S]) -> Ran {
    finish(command(args).output().unwrap())
}

/// Reads what a run printed; a panic is never an answer.
#[track_caller]
pub fn finish(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let (device, stderr) = match stderr.split_once('\n') {
        Some((line, rest)) if line.starts_with("device  ") => (Some(line.into()), rest.into()),
        _ => (None, stderr),
    };
    let ran = Ran { code: output.status.code(), stdout, stderr, device };
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    ran
}

impl Ran {
    /// Fails the test unless the run succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the run ended with this code and said all of `parts`, prefixed by
    /// `error: `, on stderr.
    #[track_caller]
    pub fn failed(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in: {}", self.stderr);
        }
        self
    }

    /// The JSON objects on stdout, which must hold nothing else.
    #[track_caller]
    pub fn json(&self) -> Vec<serde_json::Value> {
        json_lines(&self.stdout)
    }
}

/// One JSON value per line, every line ended.
#[track_caller]
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is not whole: {text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The keys of an object, in the order written.
pub fn keys(value: &serde_json::Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Every name in a directory, hidden ones included.
pub fn listing(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A path as an argument.
pub fn arg(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

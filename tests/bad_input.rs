//! Input that cannot work: the message, the exit code, and that nothing is left behind.

mod data;
mod disk;
mod model;
mod numerics;
mod output;
mod usage;

use crate::support::command::{Ran, arg, finish, listing};
use crate::support::{command, embedded_model};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A place to run `hooke finetune` in: rows that work, and a directory for the output alone.
struct Bench {
    dir: TempDir,
    /// Rows to train on.
    train: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let train = dir.path().join("train.jsonl");
        std::fs::write(&train, "{\"text\": \"Alice was tired.\"}\n{\"text\": \"Who?\"}\n").unwrap();
        std::fs::create_dir(dir.path().join("outputs")).unwrap();
        Self { dir, train }
    }

    /// Where the output directory would appear; nothing else is in there.
    fn outputs(&self) -> PathBuf {
        self.dir.path().join("outputs")
    }

    fn output(&self) -> PathBuf {
        self.outputs().join("run")
    }

    /// The arguments of a run of one step on `model`.
    fn args(&self, model: &Path, more: &[&str]) -> Vec<String> {
        let (model, train, output) = (arg(model), arg(&self.train), arg(&self.output()));
        let all = ["finetune", "--model", &model, "--train", &train, "--output-dir", &output];
        all.iter().chain(more).map(|arg| arg.to_string()).collect()
    }

    fn finetune(&self, model: &Path, more: &[&str]) -> Ran {
        finish(command::command(&self.args(model, more)).output().unwrap())
    }

    /// Runs the embedded model, which must fail and leave nothing.
    #[track_caller]
    fn refuses(&self, more: &[&str], code: i32, parts: &[&str]) -> Ran {
        self.refuses_model(&embedded_model(), more, code, parts)
    }

    #[track_caller]
    fn refuses_model(&self, model: &Path, more: &[&str], code: i32, parts: &[&str]) -> Ran {
        let ran = self.finetune(model, more).failed(code, parts);
        assert_eq!(ran.stdout, "", "no results");
        assert_eq!(listing(&self.outputs()), [""; 0], "left behind");
        ran
    }
}

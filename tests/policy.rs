//! Rules of the tree, kept by reading it.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `src/lib.rs`, lowest first; modules of one layer do not know each other.
const LAYERS: [&[&str]; 13] = [
    &["error", "dtype", "shape", "rng"],
    &["cuda"],
    &["device", "testing"],
    &["tensor"],
    &["memory"],
    &["ops"],
    &["model", "optim"],
    &["data"],
    &["checkpoint"],
    &["train", "eval", "generate"],
    &["validate", "doctor"],
    &["cli"],
    &["lib", "main"],
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir` with one of these endings.
fn files(dir: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            let hidden =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() {
                // Hidden ones are environments that tools make, not the tree.
                if !hidden {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| endings.iter().any(|&x| e == x)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_string()
}

fn layer_of(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("module {module} has no layer in tests/policy.rs"))
}

/// Modules named after `crate::` in a line of code.
fn uses(line: &str) -> Vec<String> {
    // `$crate::` stands in a macro and belongs to whoever calls it.
    let code = line.split("//").next().unwrap_or_default().replace("$crate", "");
    let word = |s: &'static str| move |c: char| !c.is_alphanumeric() && !s.contains(c);
    code.match_indices("crate::")
        .map(|(at, found)| {
            let rest = &code[at + found.len()..];
            rest.split(word("_")).next().unwrap_or_default().to_string()
        })
        .filter(|module| !module.is_empty() && module.chars().all(|c| c.is_lowercase() || c == '_'))
        .collect()
}

#[test]
fn no_module_looks_up_or_sideways() {
    let macros = ["with_real"];
    let mut checked = 0;
    for path in files("src", &["rs"]) {
        let module = module_of(&path);
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            for used in uses(line).into_iter().filter(|used| !macros.contains(&used.as_str())) {
                let allowed = used == module || layer_of(&used) < layer_of(&module);
                assert!(allowed, "{}:{}: {module} uses {used}", path.display(), number + 1);
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "only {checked} uses seen: the check reads nothing");
}

#[test]
fn the_layer_check_sees_what_it_forbids() {
    assert_eq!(uses("use crate::train::run::Run; // crate::cli"), ["train"]);
    assert_eq!(uses("    crate::cli::main()"), ["cli"]);
    assert!(layer_of("cli") > layer_of("train"));
}

#[test]
fn files_stay_short_and_narrow() {
    let mut seen = 0;
    for dir in ["src", "tests", "benches", "kernels", "tools"] {
        for path in files(dir, &["rs", "cu", "cuh", "cpp", "h", "py", "sh"]) {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().count();
            assert!(lines <= 500, "{}: {lines} lines, at most 500", path.display());
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} files seen");
}

#[test]
fn unsafe_code_stays_with_the_device() {
    for path in files("src", &["rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let allows = text.lines().any(|line| line.contains("allow(unsafe_code)"));
        let module = module_of(&path);
        let ok = !allows || module == "device" || module == "cuda";
        assert!(ok, "{}: unsafe code outside src/device and src/cuda", path.display());
    }
}

#[test]
fn every_operator_has_its_contract_reference_and_test() {
    let mut count = 0;
    for entry in fs::read_dir(root().join("src/ops")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let op = path.file_name().unwrap().to_str().unwrap();
        let test = root().join(format!("tests/ops/{op}.rs"));
        let parts = ["mod.rs", "cpu.rs", "cuda.rs"].map(|part| path.join(part));
        for part in parts.into_iter().chain([test]) {
            assert!(part.is_file(), "{} is missing", part.display());
        }
        count += 1;
    }
    assert!(count >= 11, "only {count} operators seen");
}

#[test]
fn nothing_is_left_to_be_filled() {
    for dir in ["src", "tests"] {
        for path in files(dir, &["rs"]) {
            // Split so that this file does not match itself.
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains(concat!("To be ", "filled")), "{} is a stub", path.display());
        }
    }
}

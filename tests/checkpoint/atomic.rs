//! Output directories: whole or not at all.

use super::listing;
use hooke::checkpoint::atomic::StagedDir;
use hooke::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

#[track_caller]
fn assert_io(result: Result<StagedDir, Error>, part: &str) {
    let error = result.expect_err("accepted");
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(error.to_string().contains(part), "no {part:?} in: {error}");
    assert_eq!(error.exit_code(), 7);
}

#[test]
fn a_committed_directory_has_its_files_and_leaves_no_trace_of_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a/b/out");
    let staged = StagedDir::new(&out).unwrap();
    assert!(!out.exists());
    assert_eq!(staged.path().parent(), out.parent());
    staged.write("config.json", b"{}").unwrap();
    fs::create_dir(staged.path().join("inner")).unwrap();
    fs::write(staged.path().join("inner/x"), "x").unwrap();
    staged.commit().unwrap();
    assert_eq!(listing(&dir.path().join("a/b")), ["out"]);
    assert_eq!(listing(&out), ["config.json", "inner"]);
    assert_eq!(fs::read(out.join("inner/x")).unwrap(), b"x");
    // As readable as a directory that `mkdir` makes.
    let plain = dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&out), mode(&plain));
}

#[test]
fn a_dropped_directory_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let staged = StagedDir::new(&dir.path().join("a/b/out")).unwrap();
    staged.write("model.safetensors", &[0; 100]).unwrap();
    assert_eq!(listing(dir.path()), ["a"]);
    drop(staged);
    assert!(listing(dir.path()).is_empty());
}

#[test]
fn parents_that_others_use_by_then_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let staged = StagedDir::new(&dir.path().join("a/b/out")).unwrap();
    fs::write(dir.path().join("a/other"), "").unwrap();
    drop(staged);
    assert_eq!(listing(&dir.path().join("a")), ["other"]);
}

#[test]
fn an_empty_directory_is_replaced_and_keeps_its_permissions() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o750)).unwrap();
    drop(StagedDir::new(&out).unwrap());
    assert_eq!(listing(dir.path()), ["out"]);
    let staged = StagedDir::new(&out).unwrap();
    staged.write("x", b"1").unwrap();
    assert!(listing(&out).is_empty());
    staged.commit().unwrap();
    assert_eq!(listing(&out), ["x"]);
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o750);
}

#[test]
fn a_link_to_an_empty_directory_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let staged = StagedDir::new(&link).unwrap();
    staged.write("x", b"1").unwrap();
    staged.commit().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(listing(&real), ["x"]);
}

#[test]
fn a_directory_that_holds_something_is_refused_and_untouched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".hidden"), "").unwrap();
    let error = StagedDir::new(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NotEmpty { .. }), "{error:?}");
    assert_eq!(listing(dir.path()), [".hidden"]);
}

#[test]
fn places_that_cannot_hold_a_directory_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "kept").unwrap();
    assert_io(StagedDir::new(&file), "file");
    assert_io(StagedDir::new(&file.join("out")), "Not a directory");
    assert_io(StagedDir::new(&file.join("a/b")), "Not a directory");
    symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
    assert_io(StagedDir::new(&dir.path().join("dangling")), "dangling");
    assert_io(StagedDir::new(&dir.path().join("absent/..")), "`..`");
    assert_io(StagedDir::new(Path::new("")), "cannot create");
    assert_io(StagedDir::new(&dir.path().join("x".repeat(300))), "too long");
    assert_io(StagedDir::new(Path::new("/proc/hooke-out")), "/proc/hooke-out");
    assert_eq!(fs::read(&file).unwrap(), b"kept");
    assert_eq!(listing(dir.path()), ["dangling", "file"]);
}

#[test]
fn an_unwritable_parent_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(locked.join("probe"), "").is_ok() {
        println!("skipped: this user may write anywhere");
        return;
    }
    assert_io(StagedDir::new(&locked.join("out")), "Permission denied");
}

#[test]
fn when_the_name_is_taken_meanwhile_the_finished_files_are_kept_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let staged = StagedDir::new(&out).unwrap();
    staged.write("x", b"1").unwrap();
    let kept = staged.path().to_path_buf();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("theirs"), "").unwrap();
    let error = staged.commit().unwrap_err();
    assert!(error.to_string().contains(&kept.display().to_string()), "{error}");
    assert_eq!(error.exit_code(), 7);
    assert_eq!(fs::read(kept.join("x")).unwrap(), b"1");
    assert_eq!(listing(&out), ["theirs"]);
}

#[test]
fn a_full_disk_while_writing_is_an_error_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let staged = StagedDir::new(&dir.path().join("out")).unwrap();
    symlink("/dev/full", staged.path().join("config.json")).unwrap();
    let error = staged.write("config.json", b"{}").unwrap_err();
    assert!(error.to_string().contains("config.json: No space left"), "{error}");
    drop(staged);
    assert!(listing(dir.path()).is_empty());
}

#[test]
fn a_mount_point_is_refused_before_the_work_and_not_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let command = std::process::Command::new(args[0]).args(&args[1..]).arg(dir.path()).output();
        command.is_ok_and(|output| output.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
        println!("skipped: this user may not mount a file system");
        return;
    }
    let refused = StagedDir::new(dir.path());
    let inside = StagedDir::new(&dir.path().join("out"));
    let full = inside.map(|staged| staged.write("x", &[0; 1 << 20]));
    let left = listing(dir.path());
    assert!(mount(&["umount"]));
    assert_io(refused, "mount point");
    let full = full.unwrap().unwrap_err();
    assert!(full.to_string().contains("No space left"), "{full}");
    assert!(left.is_empty(), "{left:?}");
}

//! safetensors headers, valid and hostile.

use super::{assert_refused, make_fifo, random, raw_file, write_file};
use hooke::checkpoint::safetensors::{NewTensor, SafetensorsFile, SafetensorsWriter};
use hooke::error::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

fn open(bytes: &[u8]) -> Result<SafetensorsFile> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.safetensors");
    std::fs::write(&path, bytes).unwrap();
    SafetensorsFile::open(&path)
}

#[test]
fn a_file_of_the_safetensors_crate_is_read_as_it_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.safetensors");
    let tensors = [
        random("b", Dtype::F32, &[2, 3]),
        random("a", Dtype::BF16, &[5]),
        random("scalar", Dtype::F16, &[]),
        random("empty", Dtype::F32, &[0, 4]),
        random("odd", Dtype::U8, &[3]),
    ];
    write_file(&path, &tensors, &[("format", "pt")]);
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.metadata(), [("format".to_string(), "pt".to_string())]);
    assert_eq!(file.tensors().len(), tensors.len());
    for tensor in &tensors {
        let entry = file.get(&tensor.name).unwrap();
        assert_eq!((entry.dtype, entry.shape.dims()), (tensor.dtype, &tensor.dims[..]));
        assert_eq!(file.bytes(entry), tensor.bytes);
    }
    assert!(file.get("c").is_none());
}

#[test]
fn hostile_headers_are_refused_with_the_reason() {
    let one = |info: &str| raw_file(&format!("{{\"a\":{info}}}"), &[0; 8]);
    let two = |a: &str, b: &str| {
        let u8s = |range: &str, n: u32| {
            format!("{{\"dtype\":\"U8\",\"shape\":[{n}],\"data_offsets\":[{range}]}}")
        };
        raw_file(&format!("{{\"a\":{},\"b\":{}}}", u8s(a, 4), u8s(b, 4)), &[0; 8])
    };
    let mut too_long = raw_file("{}", &[]);
    too_long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut over_cap = vec![b' '; 100_000_009 + 8];
    over_cap[..8].copy_from_slice(&100_000_001u64.to_le_bytes());
    over_cap[8] = b'{';
    let max = usize::MAX;
    for (bytes, parts) in [
        (vec![], vec!["at least 8 bytes", "0 bytes"]),
        (vec![0; 7], vec!["at least 8 bytes", "7 bytes"]),
        (vec![0; 8], vec!["opening brace", "nothing"]),
        (too_long, vec!["header length", "18446744073709551615"]),
        (over_cap, vec!["header length", "at most 100000000", "100000001"]),
        (raw_file(" {}", &[]), vec!["opening brace", "0x20"]),
        (raw_file("[]", &[]), vec!["opening brace", "0x5b"]),
        (raw_file("{", &[]), vec!["header", "EOF"]),
        (raw_file("{} x", &[]), vec!["header", "trailing characters"]),
        (raw_file("{\"a\":1}", &[]), vec!["`a`", "invalid type"]),
        (raw_file("{}", &[0]), vec!["0 bytes of data", "1 bytes"]),
        (raw_file("{\"__metadata__\":{\"x\":1}}", &[]), vec!["__metadata__", "expected a string"]),
        (raw_file("{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}}", &[]), vec!["`x` appears twice"]),
        (raw_file("{\"__metadata__\":{},\"__metadata__\":{}}", &[]), vec!["appears twice"]),
        (one("{\"shape\":[2],\"data_offsets\":[0,8]}"), vec!["`a`", "missing field `dtype`"]),
        (one("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}"), vec!["`a`", "missing field `shape`"]),
        (one("{\"dtype\":\"F32\",\"shape\":[2]}"), vec!["`a`", "missing field `data_offsets`"]),
        (
            one("{\"dtype\":\"F32\",\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,8]}"),
            vec!["`a`", "duplicate field"],
        ),
        (
            one("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}"),
            vec!["`a`", "unknown field `x`"],
        ),
        (
            one("{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}"),
            vec!["`a`", "unknown variant `F33`"],
        ),
        (
            one("{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}"),
            vec!["`a`", "integer `-2`"],
        ),
        (
            one("{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}"),
            vec!["`a`", "floating point"],
        ),
        (
            one("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}"),
            vec!["`a`", "trailing characters"],
        ),
        (
            one("{\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]}"),
            vec!["`a`", "rank at most 4", "[1, 1, 1, 1, 2]"],
        ),
        (
            one(&format!("{{\"dtype\":\"F32\",\"shape\":[{max},2],\"data_offsets\":[0,8]}}")),
            vec!["`a`", "does not overflow"],
        ),
        (
            one(&format!("{{\"dtype\":\"F32\",\"shape\":[{max}],\"data_offsets\":[0,8]}}")),
            vec!["`a`", "whole number of bytes"],
        ),
        (
            one("{\"dtype\":\"F4\",\"shape\":[15],\"data_offsets\":[0,8]}"),
            vec!["`a`", "whole number of bytes", "[15] of F4"],
        ),
        (
            one("{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}"),
            vec!["`a`", "12 bytes within the 8", "offsets 0 to 8"],
        ),
        (
            one("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}"),
            vec!["`a`", "offsets 8 to 0"],
        ),
        (
            one("{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}"),
            vec!["`a`", "16 bytes within the 8"],
        ),
        (two("0,4", "0,4"), vec!["`b`", "from byte 4", "byte 0"]),
        (two("0,4", "3,7"), vec!["`b`", "from byte 4", "byte 3"]),
        (two("1,5", "5,9"), vec!["`b`", "4 bytes within the 8"]),
        (two("4,8", "4,8"), vec!["`a`", "from byte 0", "byte 4"]),
        (
            raw_file("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", &[0; 8]),
            vec!["4 bytes of data", "8 bytes"],
        ),
        (
            raw_file(
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\
                 \"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}",
                &[0; 8],
            ),
            vec!["`a` appears twice"],
        ),
    ] {
        let header = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let result = open(&bytes);
        assert!(result.is_err(), "accepted {header}");
        assert_refused(result, &parts);
    }
    let mut not_text = raw_file("{\"?\":1}", &[]);
    not_text[10] = 0xff;
    assert_refused(open(&not_text), &["header", "unicode"]);
}

fn small_file() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small.safetensors");
    let tensors = [random("x", Dtype::F32, &[2, 3]), random("y", Dtype::F16, &[3])];
    write_file(&path, &tensors, &[("format", "pt")]);
    std::fs::read(path).unwrap()
}

#[test]
fn a_flipped_bit_is_refused_or_changes_no_more_than_a_name() {
    let intact = small_file();
    let reference = open(&intact).unwrap();
    let header_end = 8 + u64::from_le_bytes(intact[..8].try_into().unwrap()) as usize;
    let mut accepted_in_header = 0;
    for i in 0..intact.len() {
        for bit in 0..8 {
            let mut bytes = intact.clone();
            bytes[i] ^= 1 << bit;
            let Ok(file) = open(&bytes) else {
                assert!(i < header_end, "a change of data is no change of form");
                continue;
            };
            accepted_in_header += usize::from(i < header_end);
            assert!(SafeTensors::deserialize(&bytes).is_ok(), "laxer than the crate at byte {i}");
            assert_eq!(file.tensors().len(), reference.tensors().len(), "byte {i} bit {bit}");
            for (got, want) in file.tensors().iter().zip(reference.tensors()) {
                assert_eq!((got.dtype, got.shape), (want.dtype, want.shape), "byte {i} bit {bit}");
                assert_eq!(got.range, want.range, "byte {i} bit {bit}");
            }
        }
    }
    // What may change unseen are the letters of x, y, format and pt.
    assert!((1..=10 * 8).contains(&accepted_in_header), "{accepted_in_header} flips accepted");
}

#[test]
fn a_file_cut_or_extended_anywhere_is_refused() {
    let intact = small_file();
    for len in 0..intact.len() {
        assert!(open(&intact[..len]).is_err(), "accepted {len} of {} bytes", intact.len());
    }
    let mut longer = intact;
    longer.push(0);
    assert_refused(open(&longer), &["bytes of data"]);
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("pipe.safetensors");
    make_fifo(&fifo);
    assert_refused(SafetensorsFile::open(&fifo), &["pipe.safetensors", "not a regular file"]);
    assert_refused(SafetensorsFile::open(dir.path()), &["a directory"]);
    let absent = dir.path().join("absent.safetensors");
    assert_refused(SafetensorsFile::open(&absent), &["absent.safetensors", "nothing"]);
    assert_refused(SafetensorsFile::open(Path::new("/dev/zero")), &["not a regular file"]);
}

#[test]
fn what_is_written_is_read_by_the_crate_and_says_its_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.safetensors");
    let tensors = [
        NewTensor { name: "z \"quoted\"", dtype: Dtype::F16, dims: &[2, 2] },
        NewTensor { name: "a", dtype: Dtype::F32, dims: &[1] },
    ];
    let metadata = [("source".to_string(), "é".to_string())];
    let mut writer = SafetensorsWriter::create(&path, &metadata, &tensors).unwrap();
    for byte in 0..12 {
        writer.append(&[byte]).unwrap();
    }
    writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("z \"quoted\"").unwrap().data(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(file.tensor("a").unwrap().data(), [8, 9, 10, 11]);
    let (header_bytes, read) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header_bytes % 8, 0);
    let strings = read.metadata().as_ref().unwrap();
    assert_eq!((strings["format"].as_str(), strings["source"].as_str()), ("pt", "é"));
}

#[test]
fn a_full_disk_is_an_error_with_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.safetensors");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let tensors = [NewTensor { name: "a", dtype: Dtype::U8, dims: &[4 << 20] }];
    let mut writer = SafetensorsWriter::create(&path, &[], &tensors).unwrap();
    let error = writer.append(&vec![0; 4 << 20]).unwrap_err();
    assert!(matches!(&error, Error::Io { path: at, .. } if *at == path), "{error:?}");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(error.exit_code(), 7);
    // A small file meets the full disk only when its buffer is emptied.
    let tensors = [NewTensor { name: "a", dtype: Dtype::U8, dims: &[1] }];
    let mut writer = SafetensorsWriter::create(&path, &[], &tensors).unwrap();
    writer.append(&[0]).unwrap();
    assert!(matches!(writer.finish(), Err(Error::Io { .. })));
}

//! The weight files of a directory: one, or several with an index that says what is where.

use super::json_map::UniqueMap;
use super::open_file;
use super::safetensors::SafetensorsFile;
use crate::error::{Error, FileKind, Result};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

/// The file that holds everything when the weights are not split.
const SINGLE: &str = "model.safetensors";
/// The file that says which tensor is in which shard.
const INDEX: &str = "model.safetensors.index.json";

/// Every weight file of a directory. Holding one proves that each tensor is in exactly one file,
/// and that the index, if there is one, agrees.
#[derive(Debug)]
pub(super) struct Shards {
    /// File names within the directory, and the files; sorted by name.
    pub(super) files: Vec<(String, SafetensorsFile)>,
    /// Name and bytes of the index, to be written again as they are.
    pub(super) index: Option<(&'static str, Vec<u8>)>,
    /// Which file and which of its tensors a name means.
    places: HashMap<String, (usize, usize)>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

impl Shards {
    /// Opens `model.safetensors` if it exists (as transformers does), otherwise the shards that
    /// the index lists.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let single = dir.join(SINGLE);
        if single.exists() {
            return Self::new(vec![(SINGLE.into(), SafetensorsFile::open(&single)?)], None, dir);
        }
        let path = dir.join(INDEX);
        if !path.exists() {
            return Err(no_weights(dir));
        }
        let bytes = open_file(&path)?.as_slice().to_vec();
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
            let expected = "an index with a `weight_map` from tensors to files";
            Error::file(FileKind::Model, &path, "", expected, error.to_string(), "")
        })?;
        let map = index.weight_map.0;
        if let Some((tensor, file)) = map.iter().find(|(_, file)| !is_plain_name(file)) {
            let place = format!("`weight_map[\"{tensor}\"]`");
            let expected = "the name of a .safetensors file in the same directory";
            return Err(Error::file(
                FileKind::Model,
                &path,
                place,
                expected,
                format!("{file:?}"),
                "",
            ));
        }
        let names: BTreeSet<&String> = map.iter().map(|(_, file)| file).collect();
        let files = names
            .into_iter()
            .map(|name| Ok((name.clone(), SafetensorsFile::open(&dir.join(name))?)))
            .collect::<Result<Vec<_>>>()?;
        let shards = Self::new(files, Some((INDEX, bytes)), dir)?;
        shards.check_index(&path, &map)?;
        Ok(shards)
    }

    fn new(
        files: Vec<(String, SafetensorsFile)>,
        index: Option<(&'static str, Vec<u8>)>,
        dir: &Path,
    ) -> Result<Self> {
        let mut places: HashMap<String, (usize, usize)> = HashMap::new();
        let mut problems = Problems::default();
        for (f, (name, file)) in files.iter().enumerate() {
            for (t, tensor) in file.tensors().iter().enumerate() {
                if let Some((first, _)) = places.insert(tensor.name.clone(), (f, t)) {
                    let first = &files[first].0;
                    problems.add(format!("`{}` in both {first} and {name}", tensor.name));
                }
            }
        }
        problems.into_result(dir, "every tensor in one file")?;
        Ok(Self { files, index, places })
    }

    /// Fails unless the index lists exactly the tensors that the files hold.
    fn check_index(&self, path: &Path, map: &[(String, String)]) -> Result<()> {
        let mut problems = Problems::default();
        for (tensor, file) in map {
            match self.places.get(tensor) {
                Some(&(f, _)) if self.files[f].0 == *file => {}
                Some(&(f, _)) => {
                    problems.add(format!("`{tensor}` in {}, not in {file}", self.files[f].0));
                }
                None => problems.add(format!("`{tensor}` missing from {file}")),
            }
        }
        let listed: BTreeSet<&str> = map.iter().map(|(tensor, _)| tensor.as_str()).collect();
        for (name, file) in &self.files {
            for tensor in file.tensors().iter().filter(|t| !listed.contains(t.name.as_str())) {
                problems.add(format!("`{}` in {name}, but not listed", tensor.name));
            }
        }
        problems.into_result(path, "what the shards hold")
    }

    /// The file and the tensor of that name.
    pub(super) fn find(
        &self,
        name: &str,
    ) -> Option<(&SafetensorsFile, &super::safetensors::TensorEntry)> {
        let &(f, t) = self.places.get(name)?;
        let file = &self.files[f].1;
        Some((file, &file.tensors()[t]))
    }
}

/// One component, no separators of any system, not hidden.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let one_normal = matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(part)), None) if part == name
    );
    let forbidden = ['/', '\\', ':', '\0'];
    one_normal
        && !name.starts_with('.')
        && !name.contains(forbidden)
        && name.ends_with(".safetensors")
}

fn no_weights(dir: &Path) -> Error {
    let expected = format!("{SINGLE} or {INDEX}");
    let others = ["pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.safetensors"];
    let other = others.into_iter().find(|name| dir.join(name).exists());
    let (got, fix) = match other {
        Some("adapter_model.safetensors") => ("an adapter only", "merge it into its base model"),
        Some(_) => (
            "weights in PyTorch's pickle format",
            "load it in transformers and write it with save_pretrained, which uses safetensors",
        ),
        None => ("neither", ""),
    };
    Error::file(FileKind::Model, dir, "", expected, got, fix)
}

/// What is wrong with the tensors of a directory: all of it is counted, the first few are named.
#[derive(Debug, Default)]
pub(super) struct Problems {
    named: Vec<String>,
    count: usize,
}

impl Problems {
    const MAX_NAMED: usize = 8;

    pub(super) fn add(&mut self, problem: String) {
        self.count += 1;
        if self.named.len() < Self::MAX_NAMED {
            self.named.push(problem);
        }
    }

    /// Fails unless there are none.
    pub(super) fn into_result(self, path: &Path, expected: &str) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let mut got = self.named.join("; ");
        if self.count > self.named.len() {
            got += &format!("; and {} more", self.count - self.named.len());
        }
        let path: PathBuf = path.into();
        Err(Error::file(FileKind::Model, &path, "", expected, got, ""))
    }
}

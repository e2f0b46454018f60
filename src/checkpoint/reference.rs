//! Reference numbers of another implementation, written by `tools/golden.py`.
//!
//! One safetensors file: metadata `hooke_reference` = `1`, the versions that made it and the AdamW
//! hyper-parameters; inputs `tokens` (T), `cu_seqlens` (N+1), `targets` (T) in I32; and results in
//! floating point:
//! `hidden/0` ... `hidden/L`, `hidden/final` (T, C) · `logits` (T, V) · `nll` (T) · `loss` (1) ·
//! `grad/NAME` of every parameter · `adamw/losses`, `adamw/grad_norms` (steps) · `weight/NAME`
//! after the steps. A tensor called `X#every=k` holds every k-th element of the flattened `X`.

use super::safetensors::{SafetensorsFile, TensorEntry};
use crate::error::{Error, FileKind, Result};
use crate::tensor::View;
use half::{bf16, f16};
use safetensors::Dtype;
use std::collections::HashMap;
use std::path::Path;

/// The value of `hooke_reference` that this reader understands.
const VERSION: &str = "1";
const SAMPLED: &str = "#every=";

/// Hyper-parameters of the AdamW run: the same batch in every step, constant learning rate, the
/// gradient clipped by its norm, decay on matrices only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReferenceOptimizer {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay.
    pub weight_decay: f64,
    /// Norm that gradients are scaled down to.
    pub max_grad_norm: f64,
    /// Steps taken.
    pub steps: usize,
}

/// The same elements of a computed tensor and of its reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// What hooke computed.
    pub got: Vec<f64>,
    /// What the reference says.
    pub want: Vec<f64>,
    /// Every how many elements of the flattened tensor; 1 for all of them.
    pub every: usize,
}

/// A reference file. Holding one proves that the inputs are a batch, that the results are there
/// for every layer and step, and that the hyper-parameters are numbers.
#[derive(Debug)]
pub struct Reference {
    file: SafetensorsFile,
    /// Per name without the sampling suffix, in the order of the file: tensor and stride.
    entries: Vec<(String, usize, usize)>,
    index: HashMap<String, usize>,
    tokens: Vec<i32>,
    cu_seqlens: Vec<i32>,
    targets: Vec<i32>,
    num_layers: usize,
    optimizer: ReferenceOptimizer,
}

impl Reference {
    /// Opens and checks the file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = SafetensorsFile::open(path)?;
        let version = metadata(&file, "hooke_reference")?;
        if version != VERSION {
            let fix = "make it anew with this version's tools/golden.py";
            return Err(wrong(&file, "metadata `hooke_reference`", VERSION, version, fix));
        }
        let optimizer = read_optimizer(&file)?;
        let (entries, index) = read_names(&file)?;
        let [tokens, cu_seqlens, targets] =
            ["tokens", "cu_seqlens", "targets"].map(|name| read_i32(&file, name));
        let num_layers = (1..).take_while(|i| index.contains_key(&format!("hidden/{i}"))).count();
        let (tokens, cu_seqlens, targets) = (tokens?, cu_seqlens?, targets?);
        let reference =
            Self { file, entries, index, tokens, cu_seqlens, targets, num_layers, optimizer };
        reference.check()?;
        Ok(reference)
    }

    fn check(&self) -> Result<()> {
        let num_tokens = self.tokens.len();
        self.check_inputs()?;
        for name in ["hidden/0", "hidden/final", "logits", "nll", "loss"] {
            self.entry(name)?;
        }
        for (name, len) in [
            ("nll", num_tokens),
            ("loss", 1),
            ("adamw/losses", self.optimizer.steps),
            ("adamw/grad_norms", self.optimizer.steps),
        ] {
            let (tensor, every) = self.entry(name)?;
            if every != 1 || tensor.shape.dims() != [len] {
                let got = format!("{} of shape {}", tensor.name, tensor.shape);
                return Err(self.wrong(name, &format!("shape [{len}]"), &got));
            }
        }
        let numbered = self.names("hidden/").filter(|rest| rest.parse::<usize>().is_ok()).count();
        if numbered != self.num_layers + 1 {
            let expected = format!("layers 0 to {} without gaps", numbered - 1);
            return Err(self.wrong(
                "hidden/",
                &expected,
                &format!("none of layer {}", self.num_layers + 1),
            ));
        }
        Ok(())
    }

    fn check_inputs(&self) -> Result<()> {
        let t = self.tokens.len();
        if t == 0 || self.tokens.iter().any(|&id| id < 0) {
            return Err(self.wrong("tokens", "token ids", "none, or a negative one"));
        }
        let bounds = &self.cu_seqlens;
        let increasing = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let ends = (bounds.first().copied(), bounds.last().map(|&end| end as usize));
        if !increasing || ends != (Some(0), Some(t)) {
            let expected = format!("increasing from 0 to {t}");
            return Err(self.wrong("cu_seqlens", &expected, &format!("{bounds:?}")));
        }
        if self.targets.len() != t || self.targets.iter().any(|&id| id < -1) {
            let expected = format!("{t} ids, or -1 where ignored");
            return Err(self.wrong("targets", &expected, &format!("{:?}", self.targets)));
        }
        Ok(())
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Ids of the packed batch (T).
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// Bounds of its documents (N+1): increasing from 0 to T.
    pub fn cu_seqlens(&self) -> &[i32] {
        &self.cu_seqlens
    }

    /// Id to be predicted at each token (T), -1 where none is.
    pub fn targets(&self) -> &[i32] {
        &self.targets
    }

    /// Layers L with a hidden state.
    pub fn num_layers(&self) -> usize {
        self.num_layers
    }

    /// How the weights were changed.
    pub fn optimizer(&self) -> &ReferenceOptimizer {
        &self.optimizer
    }

    /// A free-form string of the file, e.g. `torch` or `transformers` for their versions.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.file.metadata().iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// What follows `prefix` in the names that begin with it, in the order of the file: with
    /// `grad/` or `weight/`, the parameters.
    pub fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.entries.iter().filter_map(move |(name, ..)| name.strip_prefix(prefix))
    }

    /// The mean loss over trained tokens.
    pub fn loss(&self) -> Result<f64> {
        Ok(self.values("loss")?[0])
    }

    /// Loss of each AdamW step, before its update.
    pub fn losses(&self) -> Result<Vec<f64>> {
        self.values("adamw/losses")
    }

    /// Gradient norm of each AdamW step, before clipping.
    pub fn grad_norms(&self) -> Result<Vec<f64>> {
        self.values("adamw/grad_norms")
    }

    /// The stored elements of `name` beside those of `computed`, whose shape must be the whole
    /// tensor's.
    pub fn pair(&self, name: &str, computed: View<'_>) -> Result<Pair> {
        let (tensor, every) = self.entry(name)?;
        let fits = match every {
            1 => tensor.shape == computed.shape(),
            _ => tensor.shape.num_elems() == computed.shape().num_elems().div_ceil(every),
        };
        if !fits {
            let expected = format!("elements of a tensor of shape {}", computed.shape());
            let got = format!("`{}` of shape {}", tensor.name, tensor.shape);
            return Err(self.wrong(name, &expected, &got));
        }
        let want = self.values(name)?;
        let got = computed.to_f64_vec()?.into_iter().step_by(every).collect();
        Ok(Pair { got, want, every })
    }

    /// All stored elements of `name`; NaN and infinities are refused.
    fn values(&self, name: &str) -> Result<Vec<f64>> {
        let (tensor, _) = self.entry(name)?;
        let bytes = self.file.bytes(tensor);
        let values = match tensor.dtype {
            Dtype::F64 => read::<f64>(bytes).collect::<Vec<_>>(),
            Dtype::F32 => read::<f32>(bytes).map(f64::from).collect(),
            Dtype::F16 => read::<f16>(bytes).map(f64::from).collect(),
            Dtype::BF16 => read::<bf16>(bytes).map(f64::from).collect(),
            other => return Err(self.wrong(name, "floating-point numbers", &other.to_string())),
        };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(i) => {
                let got = format!("{} at element {i}", values[i]);
                Err(self.wrong(name, "finite numbers", &got))
            }
        }
    }

    fn entry(&self, name: &str) -> Result<(&TensorEntry, usize)> {
        let Some(&i) = self.index.get(name) else {
            return Err(self.wrong(name, "a tensor of that name", "none"));
        };
        let (_, tensor, every) = &self.entries[i];
        Ok((&self.file.tensors()[*tensor], *every))
    }

    fn wrong(&self, name: &str, expected: &str, got: &str) -> Error {
        wrong(&self.file, &format!("`{name}`"), expected, got, "")
    }
}

fn wrong(file: &SafetensorsFile, place: &str, expected: &str, got: &str, fix: &str) -> Error {
    Error::file(FileKind::Model, file.path(), place, expected, got, fix)
}

fn metadata<'a>(file: &'a SafetensorsFile, key: &str) -> Result<&'a str> {
    let found = file.metadata().iter().find(|(k, _)| k == key);
    let missing = || {
        let fix = "use a file written by tools/golden.py";
        wrong(file, &format!("metadata `{key}`"), "a value", "none", fix)
    };
    found.map(|(_, value)| value.as_str()).ok_or_else(missing)
}

fn read_optimizer(file: &SafetensorsFile) -> Result<ReferenceOptimizer> {
    let number = |key: &str| {
        let text = metadata(file, key)?;
        let value = text.parse::<f64>().ok().filter(|x| x.is_finite() && *x >= 0.0);
        value.ok_or_else(|| {
            let place = format!("metadata `{key}`");
            wrong(file, &place, "a finite number of at least 0", &format!("`{text}`"), "")
        })
    };
    let steps = metadata(file, "steps")?;
    let steps = steps.parse().map_err(|_| {
        wrong(file, "metadata `steps`", "a number of steps", &format!("`{steps}`"), "")
    })?;
    Ok(ReferenceOptimizer {
        learning_rate: number("learning_rate")?,
        beta1: number("beta1")?,
        beta2: number("beta2")?,
        epsilon: number("epsilon")?,
        weight_decay: number("weight_decay")?,
        max_grad_norm: number("max_grad_norm")?,
        steps,
    })
}

type Entries = (Vec<(String, usize, usize)>, HashMap<String, usize>);

/// Separates names from strides.
fn read_names(file: &SafetensorsFile) -> Result<Entries> {
    let (mut entries, mut index) = (Vec::new(), HashMap::new());
    for (i, tensor) in file.tensors().iter().enumerate() {
        let (name, every) = match tensor.name.split_once(SAMPLED) {
            None => (tensor.name.as_str(), 1),
            Some((name, every)) => match every.parse::<usize>() {
                Ok(every) if every >= 2 && tensor.shape.dims().len() == 1 => (name, every),
                _ => {
                    let place = format!("`{}`", tensor.name);
                    let expected = "`#every=k` with k of at least 2, and rank 1";
                    let got = format!("shape {}", tensor.shape);
                    return Err(wrong(file, &place, expected, &got, ""));
                }
            },
        };
        if index.insert(name.to_string(), entries.len()).is_some() {
            return Err(wrong(
                file,
                &format!("`{name}`"),
                "one tensor",
                "another sample of it",
                "",
            ));
        }
        entries.push((name.to_string(), i, every));
    }
    Ok((entries, index))
}

fn read_i32(file: &SafetensorsFile, name: &str) -> Result<Vec<i32>> {
    let place = format!("`{name}`");
    let Some(tensor) = file.get(name) else {
        return Err(wrong(file, &place, "a tensor of that name", "none", ""));
    };
    if tensor.dtype != Dtype::I32 || tensor.shape.dims().len() != 1 {
        let got = format!("{} of shape {}", tensor.dtype, tensor.shape);
        return Err(wrong(file, &place, "I32 of rank 1", &got, ""));
    }
    Ok(read::<i32>(file.bytes(tensor)).collect())
}

fn read<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> impl Iterator<Item = T> + '_ {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

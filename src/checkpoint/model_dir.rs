//! A Hugging Face model directory: read into [`Params`], and written again in the same form.

use super::atomic::StagedDir;
use super::convert::{decode, encode, float_dtype};
use super::open_file;
use super::safetensors::{NewTensor, SafetensorsFile, SafetensorsWriter, TensorEntry};
use super::shards::{Problems, Shards};
use super::{companions, is_absence};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, FileKind, Result};
use crate::model::config::ModelConfig;
use crate::model::layout::{ParamLayout, Span};
use crate::model::params::Params;
use crate::tensor::{Tensor, View, ViewMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONFIG: &str = "config.json";
const HEAD: &str = "lm_head.weight";
/// Elements converted at a time when writing, or for a GPU: what is held besides the parameters themselves.
const CHUNK_ELEMS: usize = 1 << 20;

/// A directory that was checked in full. Holding one proves that `config.json` describes a model
/// hooke computes, that the weight files hold exactly its parameters, once each, in their shapes
/// and in F32, F16 or BF16, and that every file is intact as far as its header tells.
#[derive(Debug)]
pub struct ModelDir {
    path: PathBuf,
    config: ModelConfig,
    config_bytes: Vec<u8>,
    layout: Arc<ParamLayout>,
    shards: Shards,
}

impl ModelDir {
    /// Opens and checks; weights are mapped, not read (but for a head stored beside the embedding
    /// that it is tied to: the two are compared).
    ///
    /// Rotary frequencies that old checkpoints store are ignored, being computed.
    pub fn open(path: &Path) -> Result<Self> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(not_a_model(path, "a file")),
            Err(error) if is_absence(&error) => {
                return Err(not_a_model(path, "nothing of that name"));
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        }
        let config_path = path.join(CONFIG);
        let config_bytes = open_file(&config_path)?.as_slice().to_vec();
        let config = ModelConfig::from_json(&config_path, &config_bytes)?;
        let layout = Arc::new(ParamLayout::new(&config)?);
        let shards = Shards::open(path)?;
        check_tensors(path, &layout, &shards)?;
        if config.tie_word_embeddings {
            check_tied_head(&shards)?;
        }
        Ok(Self { path: path.into(), config, config_bytes, layout, shards })
    }

    /// What `config.json` says.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the parameters lie once loaded.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        &self.layout
    }

    /// Reads every parameter as `dtype` (exactly, if it is as wide as the files'; otherwise
    /// rounded once, to nearest even). NaN or infinite weights are refused.
    pub fn load(&self, device: &Device, dtype: DType) -> Result<Params> {
        let mut params = Params::zeros(device, "the weights", &self.layout, dtype)?;
        self.load_into(params.flat_mut())?;
        Ok(params)
    }

    /// The same into memory that is there: as many elements as the model has parameters, of any
    /// floating-point type, on any device.
    pub fn load_into(&self, mut flat: ViewMut<'_>) -> Result<()> {
        let dtype = flat.dtype();
        // What is not host memory is filled a chunk at a time through some that is.
        let chunk_elems = if flat.is_on_host() { usize::MAX } else { CHUNK_ELEMS };
        let mut chunk = None;
        for spec in self.layout.specs() {
            let (file, tensor, from) = self.find(&spec.name)?;
            let (bytes, num_elems) = (file.bytes(tensor), spec.span.shape.num_elems());
            let mut start = 0;
            while start < num_elems {
                let n = chunk_elems.min(num_elems - start);
                let source = &bytes[start * from.size_bytes()..(start + n) * from.size_bytes()];
                let out = flat.reborrow().slice_rows(spec.span.offset + start, n);
                let decoded = if out.is_on_host() {
                    decode(source, from, out)
                } else {
                    let chunk = host_chunk(&mut chunk, dtype)?;
                    let decoded = decode(source, from, chunk.rows_mut(n));
                    out.copy_from(&chunk.rows(n))?;
                    decoded
                };
                decoded.map_err(|lost| {
                    let place = format!("`{}`, element {}", spec.name, start + lost.index);
                    let (expected, got) = (format!("a finite {dtype}"), lost.value.to_string());
                    Error::file(FileKind::Model, file.path(), place, expected, got, "")
                })?;
                start += n;
            }
        }
        Ok(())
    }

    /// `open` has shown that all of these exist.
    fn find(&self, name: &str) -> Result<(&SafetensorsFile, &TensorEntry, DType)> {
        let found = self.shards.find(name);
        let typed =
            found.and_then(|(file, tensor)| Some((file, tensor, float_dtype(tensor.dtype)?)));
        typed.ok_or_else(|| not_a_model(&self.path, &format!("no `{name}`")))
    }

    /// Writes a directory that differs from this one in the values of the parameters only: same
    /// files, shards, order, element types and metadata, the same `config.json`, tokenizer,
    /// template and licence files. With unchanged parameters of at least the files' precision,
    /// every weight has the same bits.
    ///
    /// A value that its file's element type cannot hold is [`Error::Overflow`], never an infinity.
    /// Panics if `params` belong to another model.
    pub fn save(&self, params: &Params, staged: &StagedDir) -> Result<()> {
        assert_eq!(**params.layout(), *self.layout, "parameters of another model");
        self.save_from(params.flat(), staged)
    }

    /// The same from a flat view of all parameters, on any device.
    pub fn save_from(&self, flat: View<'_>, staged: &StagedDir) -> Result<()> {
        assert_eq!(
            flat.shape().num_elems(),
            self.layout.num_elems(),
            "parameters of another model"
        );
        staged.write(CONFIG, &self.config_bytes)?;
        companions::copy(&self.path, staged)?;
        for (name, file) in &self.shards.files {
            self.save_file(name, file, flat, staged)?;
        }
        match &self.shards.index {
            Some((name, bytes)) => staged.write(name, bytes),
            None => Ok(()),
        }
    }

    fn save_file(
        &self,
        name: &str,
        source: &SafetensorsFile,
        flat: View<'_>,
        staged: &StagedDir,
    ) -> Result<()> {
        let path = staged.path().join(name);
        let tensors: Vec<_> = source.tensors().iter().map(as_new).collect();
        let mut writer = SafetensorsWriter::create(&path, source.metadata(), &tensors)?;
        for tensor in source.tensors() {
            match self.span_of(&tensor.name) {
                Some(span) => append(&mut writer, tensor, flat, span)?,
                None => writer.append(source.bytes(tensor))?,
            }
        }
        writer.finish()
    }

    /// The parameter that a stored tensor stands for: for a head stored though tied, the embedding.
    fn span_of(&self, name: &str) -> Option<&Span> {
        let spec = self.layout.get(name).map(|spec| &spec.span);
        spec.or_else(|| (name == HEAD).then(|| self.layout.head()))
    }
}

fn not_a_model(path: &Path, got: &str) -> Error {
    let expected = "a directory with config.json and safetensors weights";
    Error::file(FileKind::Model, path, "", expected, got, "")
}

fn as_new(tensor: &TensorEntry) -> NewTensor<'_> {
    NewTensor { name: &tensor.name, dtype: tensor.dtype, dims: tensor.shape.dims() }
}

/// Converts and writes one parameter, a chunk at a time.
fn append(
    writer: &mut SafetensorsWriter,
    tensor: &TensorEntry,
    flat: View<'_>,
    span: &Span,
) -> Result<()> {
    let to = float_dtype(tensor.dtype).unwrap_or(flat.dtype());
    let (mut bytes, mut chunk) = (Vec::new(), None);
    let mut start = span.offset;
    while start < span.end() {
        let len = CHUNK_ELEMS.min(span.end() - start);
        let mut values = flat.slice_rows(start, len);
        if !values.is_on_host() {
            let chunk = host_chunk(&mut chunk, flat.dtype())?;
            chunk.rows_mut(len).copy_from(&values)?;
            values = chunk.rows(len);
        }
        encode(values, to, &mut bytes).map_err(|lost| {
            let element = start - span.offset + lost.index;
            Error::Overflow {
                problem: format!(
                    "`{}`, element {element}, is {:e}: more than {} can hold",
                    tensor.name, lost.value, tensor.dtype
                ),
                fix: "lower the learning rate, or start from a copy of the model in BF16 or F32"
                    .into(),
            }
        })?;
        writer.append(&bytes)?;
        start += len;
    }
    Ok(())
}

/// Host memory for a chunk, made when it is first needed.
fn host_chunk(chunk: &mut Option<Tensor>, dtype: DType) -> Result<&mut Tensor> {
    let what = "a chunk of weights";
    match chunk {
        Some(tensor) => Ok(tensor),
        None => Ok(chunk.insert(Tensor::zeros(&Device::Cpu, what, [CHUNK_ELEMS], dtype)?)),
    }
}

/// Fails unless the files hold exactly the parameters of the layout.
fn check_tensors(dir: &Path, layout: &ParamLayout, shards: &Shards) -> Result<()> {
    let mut problems = Problems::default();
    for spec in layout.specs() {
        match shards.find(&spec.name) {
            None => problems.add(format!("no `{}`", spec.name)),
            Some((_, tensor)) if tensor.shape != spec.span.shape => {
                let (got, want) = (tensor.shape, spec.span.shape);
                problems.add(format!("`{}` of shape {got} instead of {want}", spec.name));
            }
            Some((_, tensor)) => check_dtype(tensor, &mut problems),
        }
    }
    // A tied model has no such parameter, yet some files hold a copy: checked by itself.
    let is_known = |name: &str| {
        layout.get(name).is_some() || name.ends_with("rotary_emb.inv_freq") || name == HEAD
    };
    for (_, file) in &shards.files {
        for tensor in file.tensors().iter().filter(|tensor| !is_known(&tensor.name)) {
            problems.add(format!("an unknown `{}`", tensor.name));
        }
    }
    problems.into_result(dir, "the tensors that config.json describes")
}

fn check_dtype(tensor: &TensorEntry, problems: &mut Problems) {
    if !matches!(float_dtype(tensor.dtype), Some(DType::F32 | DType::F16 | DType::BF16)) {
        let (name, dtype) = (&tensor.name, tensor.dtype);
        problems.add(format!("`{name}` in {dtype} instead of F32, F16 or BF16"));
    }
}

/// Fails if there is an `lm_head.weight` that differs from the embedding it should be tied to.
fn check_tied_head(shards: &Shards) -> Result<()> {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    let (Some((head_file, head)), Some((embedding_file, embedding))) =
        (shards.find(HEAD), shards.find(EMBEDDING))
    else {
        return Ok(());
    };
    let same_form = (head.shape, head.dtype) == (embedding.shape, embedding.dtype);
    if same_form && head_file.bytes(head) == embedding_file.bytes(embedding) {
        return Ok(());
    }
    let expected = format!("the bytes of `{EMBEDDING}`, as `tie_word_embeddings` is true");
    let fix = "set `tie_word_embeddings` to false in config.json if the head is to be separate, \
               otherwise remove the tensor";
    let got = if same_form {
        "other values".into()
    } else {
        format!("{} {} instead of {} {}", head.dtype, head.shape, embedding.dtype, embedding.shape)
    };
    Err(Error::file(FileKind::Model, head_file.path(), format!("`{HEAD}`"), expected, got, fix))
}

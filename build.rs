//! Compiles the kernels and embeds them.
//!
//! Every `kernels/*.cu` becomes one fatbin (`*_sm90.cu`: only for architectures from 90 on), and
//! `$OUT_DIR/kernels.rs` a table of them with ptxas' own log and the PTX parameter lists. No nvcc
//! is not an error: the table comes out empty and the program says so at run time. Under feature `emu`
//! the same sources, compiled by g++, and kernels/emu become a stand-in `libcuda.so`, whose path is
//! in `HOOKE_EMU_LIBCUDA` when the tests are compiled.
//!
//! Environment: `HOOKE_CUDA=auto|off|require` (auto), `HOOKE_CUDA_ARCHS` ("80,90a"),
//! `HOOKE_NVCC_FLAGS`, and where nvcc is: `NVCC`, `CUDA_HOME` or `CUDA_PATH`, else `.cuda` (made by
//! tools/cuda_toolchain.sh), `PATH`, /usr/local/cuda, /opt/cuda. No GPU is ever asked.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

type Result<T, E = String> = std::result::Result<T, E>;

const VARIABLES: [&str; 7] =
    ["HOOKE_CUDA", "HOOKE_CUDA_ARCHS", "HOOKE_NVCC_FLAGS", "NVCC", "CUDA_HOME", "CUDA_PATH", "CXX"];
const NO_NVCC: &str = "no nvcc was found when this binary was built; run tools/cuda_toolchain.sh, \
                       or set NVCC or CUDA_HOME, and build again";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    for variable in VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Err(problem) = build() {
        for line in problem.lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

fn build() -> Result<()> {
    let mode = env::var("HOOKE_CUDA").unwrap_or_else(|_| "auto".into());
    let nvcc = match mode.as_str() {
        "off" => Err("this binary was built with HOOKE_CUDA=off".to_string()),
        "auto" | "require" => find_nvcc()?.ok_or_else(|| NO_NVCC.to_string()),
        other => return Err(format!("HOOKE_CUDA={other}: expected auto, off or require")),
    };
    let emulate = env::var_os("CARGO_FEATURE_EMU").is_some();
    let out = PathBuf::from(required("OUT_DIR")?);
    match nvcc {
        Ok(nvcc) => {
            let toolkit = Toolkit::open(&nvcc, &out, emulate)?;
            let images = toolkit.images(Path::new("kernels"))?;
            write_table(&out.join("kernels.rs"), Ok(&toolkit.description), &images)?;
            if emulate {
                let images = toolkit.images(Path::new("kernels/conformance"))?;
                write_table(&out.join("conformance.rs"), Ok(&toolkit.description), &images)?;
                let library = build_emulator(&toolkit, &out.join("emu"))?;
                println!("cargo::rustc-env=HOOKE_EMU_LIBCUDA={}", library.display());
            }
            Ok(())
        }
        Err(why) if mode == "require" || emulate => Err(format!("CUDA kernels are needed: {why}")),
        Err(why) => {
            println!("cargo::warning=GPU kernels left out: {why}");
            write_table(&out.join("kernels.rs"), Err(&why), &[])
        }
    }
}

fn required(variable: &str) -> Result<std::ffi::OsString> {
    env::var_os(variable).ok_or_else(|| format!("cargo did not set {variable}"))
}

/// What is named must exist; what is only looked for may be absent.
fn find_nvcc() -> Result<Option<PathBuf>> {
    if let Some(nvcc) = env::var_os("NVCC").map(PathBuf::from) {
        let problem = format!("NVCC={} is not a file", nvcc.display());
        return if nvcc.is_file() { Ok(Some(nvcc)) } else { Err(problem) };
    }
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = env::var_os(variable).map(PathBuf::from) {
            let nvcc = home.join("bin/nvcc");
            let problem = format!("{variable}={} has no bin/nvcc", home.display());
            return if nvcc.is_file() { Ok(Some(nvcc)) } else { Err(problem) };
        }
    }
    let local = PathBuf::from(required("CARGO_MANIFEST_DIR")?).join(".cuda/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    Ok([local]
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(["/usr/local/cuda/bin".into(), "/opt/cuda/bin".into()])
        .map(|directory| directory.join("nvcc"))
        .find(|nvcc| nvcc.is_file()))
}

/// One compiled source: its fatbin, ptxas' log, and the kernels with their PTX parameters.
struct Image {
    name: String,
    fatbin: PathBuf,
    log: PathBuf,
    kernels: Vec<(String, Vec<(String, usize)>)>,
}

struct Toolkit {
    nvcc: PathBuf,
    description: String,
    architectures: Vec<String>,
    flags: Vec<String>,
    cache: Cache,
}

impl Toolkit {
    fn open(nvcc: &Path, out: &Path, emulate: bool) -> Result<Self> {
        println!("cargo::rerun-if-changed={}", nvcc.display());
        let version = run(Command::new(nvcc).arg("--version"))?;
        let version = version.split(", V").nth(1).and_then(|v| v.split_whitespace().next());
        let version = version.unwrap_or("of unknown version");
        let list = env::var("HOOKE_CUDA_ARCHS").unwrap_or_else(|_| "80,90a".into());
        let architectures: Vec<String> = list
            .split([',', ';'])
            .map(|a| a.trim().to_string())
            .filter(|a| !a.is_empty())
            .collect();
        if architectures.is_empty() || architectures.iter().any(|a| number_of(a).is_none()) {
            return Err(format!("HOOKE_CUDA_ARCHS={list}: expected a list such as 80,90a"));
        }
        let mut flags: Vec<String> =
            ["-std=c++17", "-O3", "-lineinfo", "-Xptxas", "-v", "-Ikernels"]
                .map(String::from)
                .into();
        // The stand-in driver reads plain cubins; a tenth of the size matters only elsewhere.
        if !emulate {
            flags.push("-Xfatbin=-compress-all".into());
        }
        if let Ok(extra) = env::var("HOOKE_NVCC_FLAGS") {
            flags.extend(extra.split_whitespace().map(String::from));
        }
        Ok(Self {
            nvcc: nvcc.to_path_buf(),
            description: format!("nvcc {version}, architectures {}", architectures.join(" ")),
            architectures,
            flags,
            cache: Cache::open(out)?,
        })
    }

    fn images(&self, folder: &Path) -> Result<Vec<Image>> {
        in_parallel(&sources(folder, "cu")?, |source| self.image(source))
    }

    fn image(&self, source: &Path) -> Result<Image> {
        let name = stem(source);
        let architectures: Vec<&String> = (self.architectures.iter())
            .filter(|a| !name.ends_with("_sm90") || number_of(a) >= Some(90))
            .collect();
        let mut flags = self.flags.clone();
        for (i, a) in architectures.iter().enumerate() {
            flags.push(format!("-gencode=arch=compute_{a},code=sm_{a}"));
            // PTX of a portable architecture runs on GPUs that are newer than this compiler.
            if i == 0 && a.chars().all(|c| c.is_ascii_digit()) {
                flags.push(format!("-gencode=arch=compute_{a},code=compute_{a}"));
            }
        }
        if architectures.is_empty() {
            return Err(format!("{}: HOOKE_CUDA_ARCHS has none from 90 on", source.display()));
        }
        let identity = format!("{} {flags:?}", self.description);
        let built =
            self.cache.get(source, &identity, &["fatbin", "log", "params"], |temporary| {
                let intermediate = temporary.with_extension("keep");
                fs::create_dir_all(&intermediate).map_err(|e| e.to_string())?;
                let mut command = Command::new(&self.nvcc);
                command.args(&flags).args(["-fatbin", "-MMD", "-MF"]);
                command.arg(temporary.with_extension("d"));
                command.args(["--keep", "--keep-dir"]).arg(&intermediate);
                command.arg("-o").arg(temporary.with_extension("fatbin")).arg(source);
                let log = run(&mut command).map_err(|e| format!("{}: {e}", source.display()))?;
                write(&temporary.with_extension("log"), &log)?;
                let parameters = ptx_parameters(&intermediate)?;
                let _ = fs::remove_dir_all(&intermediate);
                write(&temporary.with_extension("params"), &parameters)
            })?;
        let parameters = fs::read_to_string(&built[2]).map_err(|e| e.to_string())?;
        let kernels = parameters.lines().map(parse_parameters).collect();
        Ok(Image { name, fatbin: built[0].clone(), log: built[1].clone(), kernels })
    }
}

/// 90 for "90a".
fn number_of(architecture: &str) -> Option<u32> {
    architecture.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().ok()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files of a folder with this extension, sorted; none if there is no folder.
fn sources(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    Ok(files)
}

/// The kernels in the PTX files of a folder: `name kind:bytes kind:bytes ...`, a line each.
fn ptx_parameters(folder: &Path) -> Result<String> {
    let mut lines: Vec<String> = Vec::new();
    for file in sources(folder, "ptx")? {
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        for entry in text.split(".entry ").skip(1) {
            let (name, rest) = entry.split_once('(').unwrap_or((entry, ""));
            let list = rest.split(')').next().unwrap_or("");
            let mut line = name.trim().to_string();
            for parameter in list.split(".param").skip(1) {
                let _ = write!(line, " {}", ptx_parameter(parameter));
            }
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines.sort();
    Ok(lines.join("\n"))
}

/// ` .u64 .ptr .align 1 name` is `u64:8`; ` .align 8 .b8 name[16]` is `b8:16`.
fn ptx_parameter(text: &str) -> String {
    let words = text.split_whitespace().map(|w| w.trim_matches(','));
    let kind = words.clone().find(|w| {
        let kind = w.trim_start_matches('.');
        w.starts_with('.') && kind[1..].parse::<u32>().is_ok()
    });
    let kind = kind.unwrap_or(".?").trim_start_matches('.');
    let array = words.clone().next_back().and_then(|w| w.split_once('[')).map(|(_, n)| n);
    let bytes = match array {
        Some(count) => count.trim_end_matches(']').parse().unwrap_or(0),
        None => kind[1..].parse().unwrap_or(0) / 8,
    };
    format!("{kind}:{bytes}")
}

fn parse_parameters(line: &str) -> (String, Vec<(String, usize)>) {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or("").to_string();
    let parameters = words.filter_map(|w| w.split_once(':'));
    (name, parameters.map(|(kind, n)| (kind.to_string(), n.parse().unwrap_or(0))).collect())
}

/// Compiled files by content, shared by debug, release and feature builds.
struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// In `target/hooke-kernels`, seen from `target/<profile>/build/<package>/out`.
    fn open(out: &Path) -> Result<Self> {
        let target = out.ancestors().nth(4).ok_or("OUT_DIR is not inside a target directory")?;
        let folder = target.join("hooke-kernels");
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The files `<stem>-<key>.<extension>`, made by `compile` (which is given a temporary name and
    /// leaves a dependency file `.d`) unless they are there for the present content of the source
    /// and of all headers that the last compilation read.
    fn get(
        &self,
        source: &Path,
        identity: &str,
        extensions: &[&str],
        compile: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Vec<PathBuf>> {
        let label = source.to_string_lossy().replace(['/', '.'], "_");
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        let dependencies = self.folder.join(format!("{label}-{:016x}.d", hasher.finish()));
        let files = |key: &str| -> Vec<PathBuf> {
            extensions.iter().map(|e| self.folder.join(format!("{label}-{key}.{e}"))).collect()
        };
        let present = files(&content_key(identity, source, &dependencies));
        if dependencies.is_file() && present.iter().all(|file| file.is_file()) {
            return Ok(present);
        }
        let temporary = self.folder.join(format!("{label}-{}", std::process::id()));
        compile(&temporary)?;
        rename(&temporary.with_extension("d"), &dependencies)?;
        let made = files(&content_key(identity, source, &dependencies));
        for (extension, file) in extensions.iter().zip(&made) {
            rename(&temporary.with_extension(extension), file)?;
        }
        Ok(made)
    }
}

/// Hash of how and what is compiled: the bytes of the source and of our own headers it includes.
fn content_key(identity: &str, source: &Path, dependencies: &Path) -> String {
    let text = fs::read_to_string(dependencies).unwrap_or_default();
    let mut own: Vec<&str> = text.split_whitespace().filter(|w| w.contains("kernels/")).collect();
    own.sort_unstable();
    own.dedup();
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    fs::read(source).unwrap_or_default().hash(&mut hasher);
    for header in own {
        (header, fs::read(header).unwrap_or_default()).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// The stand-in driver: the engine, and all kernels as C++.
fn build_emulator(toolkit: &Toolkit, folder: &Path) -> Result<PathBuf> {
    let compiler = env::var("CXX").unwrap_or_else(|_| "g++".into());
    let include = toolkit.nvcc.with_file_name("../include");
    let common = "-std=c++17 -g1 -march=x86-64-v3 -fPIC -fvisibility=hidden -fno-exceptions \
                  -Wall -Wno-psabi -Wno-unknown-pragmas -Wno-missing-field-initializers -Ikernels";
    // Kernels call the __tsan_* functions of kernels/emu/hooks.cpp at every access. A call in tail
    // position would hide the line it came from.
    let kernel = "-O2 -fsanitize=thread --param=tsan-instrument-func-entry-exit=0 \
                  -fno-optimize-sibling-calls -x c++";
    let mut jobs: Vec<(PathBuf, &str)> = Vec::new();
    jobs.extend(sources(Path::new("kernels/emu"), "cpp")?.into_iter().map(|s| (s, "-O3")));
    for kernels in ["kernels", "kernels/conformance"] {
        jobs.extend(sources(Path::new(kernels), "cu")?.into_iter().map(|s| (s, kernel)));
    }
    let objects = in_parallel(&jobs, |(source, flags)| {
        let identity = format!("{compiler} {common} {flags} {}", toolkit.description);
        let built = toolkit.cache.get(source, &identity, &["o"], |temporary| {
            let mut command = Command::new(&compiler);
            command.args(common.split_whitespace()).args(flags.split_whitespace());
            command.arg("-I").arg(&include).args(["-MMD", "-MF"]);
            command.arg(temporary.with_extension("d")).arg("-c").arg(source);
            command.arg("-o").arg(temporary.with_extension("o"));
            run(&mut command).map(drop).map_err(|e| format!("{}: {e}", source.display()))
        });
        built.map(|mut files| files.remove(0))
    })?;
    // The mutation tests build the library again, with one of these replaced.
    let join = |paths: &[PathBuf]| {
        paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join("\n")
    };
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    write(&folder.join("objects"), &join(&objects))?;
    let inputs: Vec<PathBuf> = jobs.iter().map(|(source, _)| source.clone()).collect();
    write(&folder.join("sources"), &join(&inputs))?;
    write(&folder.join("flags"), &format!("{common} {kernel}"))?;
    let library = folder.join("libcuda.so");
    // The name that cudarc looks for first; never unloaded, because cudarc opens and closes it once
    // to see whether it is there; nothing exported but the driver's functions.
    let link_flags = "-shared -fPIC -Wl,-soname,libcuda.so -Wl,-z,nodelete -Wl,-z,defs \
                      -static-libstdc++ -static-libgcc \
                      -Wl,--version-script=kernels/emu/exports.map";
    write(&folder.join("link_flags"), link_flags)?;
    let mut link = Command::new(&compiler);
    link.args(link_flags.split_whitespace()).args(&objects).args(["-ldl", "-o"]).arg(&library);
    run(&mut link)?;
    let alias = folder.join("libcuda.so.1");
    if !alias.exists() {
        std::os::unix::fs::symlink("libcuda.so", &alias).map_err(|e| e.to_string())?;
    }
    Ok(library)
}

fn write_table(path: &Path, toolchain: Result<&String, &String>, images: &[Image]) -> Result<()> {
    let mut text = format!(
        "/// What compiled the kernels, or why there are none.\n\
         pub const TOOLCHAIN: ::core::result::Result<&str, &str> = {toolchain:?};\n\
         /// One image per source file.\n\
         pub static IMAGES: &[Image] = &[\n"
    );
    for image in images {
        let _ = writeln!(text, "    Image {{\n        name: {:?},", image.name);
        let _ = writeln!(text, "        fatbin: {{");
        let fatbin = format!("*include_bytes!({:?})", image.fatbin);
        let _ = writeln!(text, "            static DATA: &Aligned<[u8]> = &Aligned({fatbin});");
        let _ = writeln!(text, "            &DATA.0\n        }},");
        let _ =
            writeln!(text, "        ptxas: include_str!({:?}),\n        kernels: &[", image.log);
        for (name, parameters) in &image.kernels {
            let _ = write!(text, "            Kernel {{ name: {name:?}, parameters: &[");
            for (kind, bytes) in parameters {
                let _ = write!(text, "Parameter {{ ptx: {kind:?}, bytes: {bytes} }}, ");
            }
            let _ = writeln!(text, "] }},");
        }
        let _ = writeln!(text, "        ],\n    }},");
    }
    text += "];\n";
    // An unchanged file keeps its time, and the crate is not compiled again.
    if fs::read_to_string(path).is_ok_and(|old| old == text) { Ok(()) } else { write(path, &text) }
}

/// Maps with as many threads as cargo allows; all errors are reported, results keep their order.
fn in_parallel<J: Sync, T: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                while let Some((i, job)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(i).map(|job| (i, job))
                } {
                    let result = work(job);
                    if let Ok(mut done) = done.lock() {
                        done.push((i, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().map_err(|e| e.to_string())?;
    done.sort_by_key(|(i, _)| *i);
    let (results, errors): (Vec<_>, Vec<_>) =
        done.into_iter().map(|d| d.1).partition(Result::is_ok);
    let errors: Vec<String> = errors.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() {
        Ok(results.into_iter().flatten().collect())
    } else {
        Err(errors.join("\n"))
    }
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("cannot run {program}: {e}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(format!("{program} failed\n{text}")) }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| format!("cannot rename {}: {e}", from.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

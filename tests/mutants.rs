//! Mutation tests: bugs are planted into kernels one at a time, and the tests must notice each.
//!
//! `cargo test --release --features emu --test mutants` compiles every mutant, links it into a
//! stand-in driver of its own, and runs the tests that cover the kernel on it, in child processes
//! of this binary. It guards the tests and the emulator's detectors against going blind. About two
//! minutes on two cores; with `HOOKE_MUTANTS=quick`, for CI, every fifth mutant.

#![allow(clippy::unwrap_used)]

#[path = "emu/mod.rs"]
mod emu;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Copy)]
enum Change {
    /// Compiled with `-DMUTANT=n`.
    Define(u32),
    /// One piece of the source (where it first occurs) replaced.
    Replace(&'static str, &'static str),
}

#[derive(Clone, Copy, PartialEq)]
enum Expect {
    Caught,
    /// A legal variant: the tests must still pass.
    Passes,
}

struct Mutant {
    source: &'static str,
    what: &'static str,
    change: Change,
    expect: Expect,
    /// Prefix of the tests that cover the kernel.
    tests: &'static str,
}

const SM80: &str = "kernels/conformance/pipeline_sm80.cu";
const SM90: &str = "kernels/conformance/pipeline_sm90.cu";

/// Planted by the macro MUTATED in the two pipelines.
const DEFINED: &[(u32, &str)] = &[
    (101, "no cp.async.wait_group"),
    (102, "cp.async.wait_group one too lax"),
    (103, "no __syncthreads after the wait"),
    (104, "no __syncthreads before the refill"),
    (105, "no cp.async.commit_group"),
    (106, "ldmatrix of A without the swizzle"),
    (107, "halves of the B fragment swapped"),
    (108, "no row bound on the load"),
    (109, "ldmatrix.trans on A"),
    (110, "computes on the buffer that is being filled"),
    (111, "wrong lane to address map for B"),
    (112, "no column bound on the store"),
    (113, "rows of the C fragment wrong"),
    (201, "consumer does not wait for full"),
    (202, "producer does not wait for empty"),
    (203, "full parity off by one"),
    (204, "empty parity off by one"),
    (205, "no wgmma.fence"),
    (206, "no wgmma.wait_group"),
    (207, "stage released before the wgmma wait"),
    (208, "expect_tx counts A only"),
    (209, "empty barrier expects 1 arrival instead of 2"),
    (210, "staging of the epilogue not swizzled"),
    (211, "descriptor stride 512 for 1024"),
    (212, "advance along K by 16 bytes for 32"),
    (213, "no fence.mbarrier_init"),
    (214, "no __syncthreads after mbarrier.init"),
    (215, "no fence.proxy.async before the TMA store"),
    (216, "no named barrier before the TMA store"),
    (217, "no bulk wait before staging is reused"),
    (218, "no wgmma.commit_group"),
    (219, "named barrier with 256 threads for 128"),
    (220, "first product accumulates too"),
    (221, "producer parity never flips"),
    (222, "tiles 128 bytes off their alignment"),
    (223, "TMA coordinates swapped"),
    (224, "no bulk wait before exit"),
    (225, "descriptor with the 64-byte swizzle"),
    (226, "wgmma.wait_group one too lax"),
    (227, "no named barrier before staging is reused"),
    (228, "stage released without the warpgroup's barrier"),
    (242, "fence.proxy.async by the issuing thread only"),
    (244, "one lane waits, no __syncwarp"),
    (250, "both warpgroups use one named barrier"),
    (251, "accumulator changed in flight"),
    (252, "one warp calls __syncthreads"),
    (253, "try_wait outside a loop"),
];
const LEGAL: &[(u32, &str)] = &[
    (240, "one lane per warp waits, then __syncwarp"),
    (241, "one empty arrival per warp"),
    (243, "every consumer thread arrives"),
];

const WGMMA: &str = "kernels/conformance/wgmma_sm90.cu";
const WARP: &str = "kernels/conformance/warp.cu";
const MEMORY: &str = "kernels/conformance/memory.cu";
const HOPPER: &str = "kernels/conformance/hopper_sm90.cu";

/// Planted into the source text: source, text, replacement, covering tests.
const REPLACED: &[(&str, &str, &str, &str)] = &[
    (WGMMA, "at_b + k * 2048, 8192, 1024", "at_b + k * 2048, 8192, 512", "emu::wgmma"),
    (WGMMA, "at_b + k * 2048, 8192, 1024", "at_b + k * 2048, 1024, 1024", "emu::wgmma"),
    (WGMMA, "ptx::wgmma<A, B>(d", "ptx::wgmma<ptx::K_MAJOR, B>(d", "emu::wgmma"),
    (WGMMA, "ptx::wgmma_wait<0>();", "ptx::wgmma_wait<1>();", "emu::wgmma"),
    (WGMMA, "ptx::mbarrier_wait(barrier, 0);", "", "emu::wgmma"),
    (WARP, "if (i >= 2) ptx::barrier_sync(3 + i % 2, 64);", "", "emu::warp"),
    (WARP, "ptx::barrier_sync(1 + i % 2, 64);", "", "emu::warp"),
    (
        WARP,
        "ptx::barrier_arrive(3 + i % 2, 64);",
        "ptx::barrier_arrive(4 - i % 2, 64);",
        "emu::warp",
    ),
    (MEMORY, "ptx::cp_async_wait<2>();", "ptx::cp_async_wait<3>();", "emu::copies"),
    (MEMORY, "__syncwarp();  // the acquire was lane 0's", "", "emu::copies"),
    (MEMORY, "ptx::add_acquire_release(arrived, 1)", "atomicAdd(arrived, 1u)", "emu::copies"),
    (MEMORY, "ptx::store_release(turn, blockIdx.x + 1)", "*turn = blockIdx.x + 1", "emu::copies"),
    (HOPPER, "ptx::mbarrier_wait(empty + 8 * stage, parity ^ 1);", "", "emu::hopper"),
    (HOPPER, "ptx::mbarrier_wait(full + 8 * stage, parity);", "", "emu::hopper"),
    (HOPPER, "ptx::cluster_wait();\n    u32 from_next", "u32 from_next", "emu::hopper"),
    (HOPPER, "(u16)((1u << ptx::cluster_size()) - 1)", "(u16)1", "emu::hopper"),
    (HOPPER, "ptx::bulk_wait_read<0>();", "", "emu::hopper"),
    // Only g++ sees these: the driver must refuse what nvcc compiled differently.
    (MEMORY, "conform_hints, 64,", "conform_hints, 96,", "emu::copies"),
    (WARP, "const float* in, int n", "const float* in, long n", "emu::math"),
];

fn mutants() -> Vec<Mutant> {
    let defined = |list: &'static [(u32, &str)], expect| {
        list.iter().map(move |&(id, what)| Mutant {
            source: if id < 200 { SM80 } else { SM90 },
            what,
            change: Change::Define(id),
            expect,
            tests: if id < 200 { "emu::pipeline::a_cp_async" } else { "emu::pipeline::a_warp" },
        })
    };
    let replaced = REPLACED.iter().map(|&(source, from, to, tests)| {
        let change = Change::Replace(from, to);
        Mutant { source, what: from, change, expect: Expect::Caught, tests }
    });
    let all =
        defined(DEFINED, Expect::Caught).chain(defined(LEGAL, Expect::Passes)).chain(replaced);
    let quick = std::env::var("HOOKE_MUTANTS").is_ok_and(|v| v == "quick");
    all.enumerate().filter(|(i, _)| !quick || i % 5 == 0).map(|(_, m)| m).collect()
}

/// What build.rs left beside the library.
struct Kit {
    folder: PathBuf,
    sources: Vec<String>,
    objects: Vec<String>,
    flags: String,
    link_flags: String,
}

impl Kit {
    fn open() -> Self {
        let folder = Path::new(env!("HOOKE_EMU_LIBCUDA")).parent().unwrap().to_path_buf();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let lines = |text: String| text.lines().map(String::from).collect();
        Self {
            sources: lines(read("sources")),
            objects: lines(read("objects")),
            flags: read("flags"),
            link_flags: read("link_flags"),
            folder,
        }
    }

    /// A stand-in driver with the mutant in the place of its kernel.
    fn build(&self, mutant: &Mutant, worker: usize) -> PathBuf {
        let place = self.folder.join(format!("mutant{worker}"));
        std::fs::create_dir_all(&place).unwrap();
        let (source, object, library) =
            (place.join("mutant.cu"), place.join("mutant.o"), place.join("libcuda.so"));
        let text = std::fs::read_to_string(mutant.source).unwrap();
        let mut compile = Command::new(compiler());
        compile.args(self.flags.split_whitespace());
        match mutant.change {
            Change::Define(id) => {
                compile.arg(format!("-DMUTANT={id}"));
                std::fs::write(&source, text).unwrap();
            }
            Change::Replace(from, to) => {
                let times = text.matches(from).count();
                assert!(times >= 1, "{}: `{from}` is not there any more", mutant.source);
                std::fs::write(&source, text.replacen(from, to, 1)).unwrap();
            }
        }
        // Its own includes are relative to where it comes from.
        compile.arg("-I").arg(Path::new(mutant.source).parent().unwrap());
        run(compile.arg("-c").arg(&source).arg("-o").arg(&object));
        let replaced = self.sources.iter().position(|s| s == mutant.source).unwrap();
        let others = self.objects.iter().enumerate().filter(|(i, _)| *i != replaced);
        let mut link = Command::new(compiler());
        link.args(self.link_flags.split_whitespace()).args(others.map(|(_, object)| object));
        run(link.arg(&object).args(["-ldl", "-o"]).arg(&library));
        library
    }
}

fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "g++".into())
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the covering tests fail on this library, and the first words of why.
fn is_caught(library: &Path, tests: &str) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([tests, "--test-threads", "1"])
        .env("HOOKE_EMU_LIBCUDA", library)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("running 0 tests"), "no test is called {tests}");
    let why =
        text.lines().find(|l| l.contains("want ") || l.contains("findings") || l.contains('['));
    (!output.status.success(), why.unwrap_or("").chars().take(150).collect())
}

#[test]
fn every_mutant_is_caught() {
    let (kit, mutants) = (Kit::open(), mutants());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (kit, mutants, next, failures) = (&kit, &mutants, &next, &failures);
            scope.spawn(move || {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let library = kit.build(mutant, worker);
                    let (caught, why) = is_caught(&library, mutant.tests);
                    println!("{} {}: {why}", if caught { "caught" } else { "passes" }, mutant.what);
                    if caught != (mutant.expect == Expect::Caught) {
                        failures.lock().unwrap().push(mutant.what);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), mutants.len());
}

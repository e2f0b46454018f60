//! The stand-in driver under the real, unmodified cudarc: orders of streams, planted bugs of the
//! host, a failure at every call, and a process that finds the library by `LD_LIBRARY_PATH`.
//!
//! What poisons a context or needs its own seed runs in a child process: this binary again, with
//! the scenario's name in the environment.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;

use super::device::{emulator, table};

const SCENARIO: &str = "HOOKE_EMU_SCENARIO";

type Result<T = ()> = std::result::Result<T, DriverError>;

#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    MissingEvent,
    EarlyFree,
    PinnedReuse,
    ReadBeforeSync,
}

struct Gpu {
    ctx: Arc<CudaContext>,
    function: cudarc::driver::CudaFunction,
}

const WORDS: usize = 4 * 1024;
const LAUNCH: LaunchConfig =
    LaunchConfig { grid_dim: (1, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };

impl Gpu {
    fn open() -> Result<Self> {
        let ctx = CudaContext::new(0)?;
        // SAFETY: before any allocation; the scenarios order their streams with events.
        unsafe { ctx.disable_event_tracking() };
        let image = table::IMAGES.iter().find(|i| i.name == "memory").unwrap();
        let module = ctx.load_module(Ptx::from_binary(image.fatbin.to_vec()))?;
        Ok(Self { function: module.load_function("conform_hints")?, ctx })
    }

    /// out = in with every fourth word doubled, for the first 256 words.
    fn double(&self, stream: &Arc<CudaStream>, out: &CudaSlice<u32>, x: &CudaSlice<u32>) -> Result {
        let mut launch = stream.launch_builder(&self.function);
        launch.arg(out).arg(x);
        // SAFETY: the kernel's two parameters are these pointers, to at least 1 KiB each.
        unsafe { launch.launch(LAUNCH) }.map(drop)
    }
}

/// One stream uploads and computes, a second computes with the result and downloads it. The result
/// is checked; a mistake of the host code is planted by `bug`.
fn pipeline(bug: Bug) -> Result {
    let gpu = Gpu::open()?;
    let (first, second) = (gpu.ctx.new_stream()?, gpu.ctx.new_stream()?);
    // SAFETY: pinned memory is written before it is read, and no copy is queued while it is touched
    // (unless that is the bug, which the page guard then reports).
    let mut source = unsafe { gpu.ctx.alloc_pinned_with_flags::<u32>(WORDS, 0) }?;
    // SAFETY: as above.
    let mut target = unsafe { gpu.ctx.alloc_pinned_with_flags::<u32>(WORDS, 0) }?;
    for (i, word) in source.as_mut_slice()?.iter_mut().enumerate() {
        *word = i as u32;
    }
    target.as_mut_slice()?.fill(0);
    let mut x: CudaSlice<u32> = first.alloc_zeros(WORDS)?;
    let y: CudaSlice<u32> = first.alloc_zeros(WORDS)?;
    first.memcpy_htod(&source, &mut x)?;
    if bug == Bug::PinnedReuse {
        source.as_mut_slice()?.fill(9);
    }
    gpu.double(&first, &y, &x)?;
    let computed = first.record_event(None)?;
    let z: CudaSlice<u32> = second.alloc_zeros(WORDS)?;
    if bug != Bug::MissingEvent {
        second.wait(&computed)?;
    }
    gpu.double(&second, &z, &y)?;
    let used = second.record_event(None)?;
    if bug != Bug::EarlyFree {
        first.wait(&used)?;
    }
    drop(y); // its memory belongs to the first stream, which frees it in its own order
    second.memcpy_dtoh(&z, &mut target)?;
    if bug != Bug::ReadBeforeSync {
        second.synchronize()?;
    }
    let got = target.as_slice()?[..256].to_vec();
    gpu.ctx.synchronize()?;
    gpu.ctx.check_err()?;
    let want: Vec<u32> = (0..256).map(|i| if i % 4 == 0 { 4 * i } else { i }).collect();
    assert_eq!(got, want, "wrong numbers");
    Ok(())
}

/// The pipeline with the failure at every call; drains the device before anything is dropped.
fn fail_at_every_call() {
    let library = emulator().unwrap();
    // SAFETY: signatures as in kernels/emu/driver.cpp.
    let (fail_at, calls, live) = unsafe {
        (
            library.get::<unsafe extern "C" fn(u64, i32)>(b"hooke_emu_fail_at").unwrap(),
            library.get::<unsafe extern "C" fn() -> u64>(b"hooke_emu_calls").unwrap(),
            library.get::<unsafe extern "C" fn(*mut u64)>(b"hooke_emu_live").unwrap(),
        )
    };
    let scenario = || -> Result {
        let gpu = Gpu::open()?;
        let stream = gpu.ctx.new_stream()?;
        let result = (|| {
            let x = stream.clone_htod(&vec![3u32; 256])?;
            let y: CudaSlice<u32> = stream.alloc_zeros(256)?;
            gpu.double(&stream, &y, &x)?;
            let got = stream.clone_dtoh(&y)?;
            assert_eq!(got[0], 6);
            Ok(())
        })();
        let _ = gpu.ctx.synchronize();
        result.and(gpu.ctx.check_err())
    };
    // SAFETY: changes a counter of the stand-in.
    unsafe { fail_at(0, 0) };
    scenario().unwrap();
    // SAFETY: reads a counter.
    let total = unsafe { calls() };
    assert!(total > 20, "{total} calls");
    let (mut returned, mut lost) = (0, Vec::new());
    for n in 1..=total {
        // SAFETY: as above. 2 is CUDA_ERROR_OUT_OF_MEMORY.
        unsafe { fail_at(n, 2) };
        match scenario() {
            Ok(()) => lost.push(n),
            Err(error) => {
                assert_eq!(error.0 as i32, 2, "call {n}");
                returned += 1;
            }
        }
        let mut counts = [0u64; 7];
        // SAFETY: room for all seven counts.
        unsafe { live(counts.as_mut_ptr()) };
        // A destroy that fails loses its handle; nothing else may.
        assert!(counts.iter().sum::<u64>() <= 1, "call {n} leaks: {counts:?}");
        // SAFETY: as above. Whatever was lost is forgotten for the next round.
        unsafe { library.get::<unsafe extern "C" fn()>(b"hooke_emu_forget").unwrap()() };
    }
    // Only errors inside the last drops have nobody left to return them to.
    assert!(lost.iter().all(|n| *n > total - 12), "lost at {lost:?} of {total}");
    println!("{returned} of {total} failures came back");
}

/// Not a test of its own: does what the parent asks for.
#[test]
fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    emulator();
    let result = match scenario.as_str() {
        "correct" => pipeline(Bug::None),
        "missing event" => pipeline(Bug::MissingEvent),
        "early free" => pipeline(Bug::EarlyFree),
        "pinned reuse" => pipeline(Bug::PinnedReuse),
        "read before sync" => pipeline(Bug::ReadBeforeSync),
        "fail at every call" => {
            fail_at_every_call();
            Ok(())
        }
        "open" => Gpu::open().map(drop),
        other => panic!("no scenario {other}"),
    };
    if let Err(error) = result {
        eprintln!("failed: {error:?}");
        std::process::exit(3);
    }
}

fn run(scenario: &str, variables: &[(&str, &str)]) -> (Output, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "emu::driver::child", "--nocapture", "--test-threads", "1"])
        .env(SCENARIO, scenario)
        .env("HOOKE_EMU_LEAKS", "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    (output, text)
}

const ORDERS: [&str; 3] = ["now", "late", "random"];

#[test]
fn a_correct_program_runs_in_every_order_of_its_streams_and_leaks_nothing() {
    for seed in 1..=9 {
        let (output, text) = run("correct", &[("HOOKE_EMU_SEED", &seed.to_string())]);
        assert!(output.status.success(), "seed {seed}: {text}");
        let clean =
            "contexts 0 allocations 0 pinned 0 events 0 streams 0 modules 0 graphs 0 queued 0";
        assert!(text.contains(clean), "seed {seed}: {text}");
    }
}

#[test]
fn missing_order_between_streams_is_reported_in_every_order() {
    for order in ORDERS {
        for bug in ["missing event", "early free"] {
            let (output, text) = run(bug, &[("HOOKE_EMU_ORDER", order)]);
            assert!(!output.status.success(), "{bug}, {order}: {text}");
            let found = text.contains("[stream-race]") || text.contains("[global-oob]");
            assert!(found, "{bug}, {order}: {text}");
            // The product's own error carries the report.
            assert!(text.contains("DriverError"), "{bug}, {order}: {text}");
        }
    }
}

#[test]
fn touching_pinned_memory_under_a_queued_copy_is_reported() {
    for bug in ["pinned reuse", "read before sync"] {
        let (output, text) = run(bug, &[("HOOKE_EMU_ORDER", "late")]);
        assert!(!output.status.success() && text.contains("[host-race]"), "{bug}: {text}");
    }
}

#[test]
fn a_failure_at_any_call_comes_back_as_an_error() {
    let (output, text) = run("fail at every call", &[]);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_process_finds_the_stand_in_by_the_library_path() {
    let folder = Path::new(env!("HOOKE_EMU_LIBCUDA")).parent().unwrap().to_str().unwrap();
    let variables = [("HOOKE_TEST_DEVICE", "gpu"), ("LD_LIBRARY_PATH", folder)];
    let (output, text) = run("correct", &variables);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("hooke emulator at exit"), "the stand-in was used: {text}");
}

#[test]
fn no_device_an_old_device_and_a_failing_call_are_errors() {
    for (variable, value, error) in [
        ("HOOKE_EMU_NO_DEVICE", "1", "CUDA_ERROR_NO_DEVICE"),
        ("HOOKE_EMU_CC", "75", "CUDA_ERROR_NO_BINARY_FOR_GPU"),
        ("HOOKE_EMU_FAIL", "6:2", "CUDA_ERROR_OUT_OF_MEMORY"),
    ] {
        let (output, text) = run("open", &[(variable, value)]);
        assert_eq!(output.status.code(), Some(3), "{variable}: {text}");
        assert!(text.contains(error), "{variable}: {text}");
    }
}

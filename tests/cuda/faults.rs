//! The driver made to fail at its n-th call, for every n of a small training run: a typed error, no
//! panic, and nothing left alive.
//!
//! The stand-in's failures are of the whole process, so each round is one of a child: this binary
//! again, with the code to inject in the environment.

use crate::emu::device::emulator;
use crate::support::{random_model, tiny_config};
use hooke::cuda::CudaDevice;
use hooke::data::batch::Batch;
use hooke::data::encode::Example;
use hooke::device::Device;
use hooke::error::{Error, Result};
use hooke::model::Model;
use hooke::model::config::{Family, ModelConfig};
use hooke::model::params::Params;
use hooke::optim::adamw::AdamWConfig;
use hooke::optim::states::OptimStates;
use hooke::train::memory::{StepLimits, plan};
use hooke::train::step::Trainer;
use std::process::Command;

const SCENARIO: &str = "HOOKE_CUDA_FAULTS";
const LIMITS: StepLimits = StepLimits { max_tokens: 4, max_documents: 2, max_micro_batches: 1 };

/// One step of a one-layer model, in the planned memory, as `hooke finetune` makes it.
fn step_on(device: &Device) -> Result<()> {
    let config = ModelConfig { num_layers: 1, ..tiny_config(Family::Qwen3) };
    let source = random_model::<f32>(&config, 1);
    let (layout, dtype) = (source.weights.layout(), source.dtype());
    let adamw = AdamWConfig {
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.01,
        states: OptimStates::F32,
        seed: 0,
    };
    device.reserve(plan(&config, layout, dtype, adamw, LIMITS, 64)?.total_bytes())?;
    let mut weights = Params::zeros(device, "weights", layout, dtype)?;
    weights.flat_mut().copy_from(&source.weights.flat())?;
    let model = Model::new(device, config, weights, 64)?;
    let mut trainer = Trainer::new(model, adamw, 1.0, LIMITS)?;
    let row = Example { ids: vec![1, 2, 3, 4], trained: vec![true; 4], line: 1 };
    trainer.step(&[Batch::pack(&[&row])], 1, 1e-2)?;
    trainer.weights().to_f64_vec().map(drop)
}

fn scenario() -> Result<()> {
    let device = Device::Cuda(CudaDevice::open(0)?);
    let result = step_on(&device);
    let closed = device.close();
    result.and(closed)
}

/// Fails every `stride`-th call in turn with `code`.
#[allow(unsafe_code)]
fn fail_at_every_call(code: i32, stride: usize) {
    let library = emulator().unwrap();
    // SAFETY: signatures as in kernels/emu/driver.cpp; they change and read counters of the
    // stand-in, and `live` has room for its seven counts.
    let (fail_at, calls, live, forget, failed_call) = unsafe {
        (
            library.get::<unsafe extern "C" fn(u64, i32)>(b"hooke_emu_fail_at").unwrap(),
            library.get::<unsafe extern "C" fn() -> u64>(b"hooke_emu_calls").unwrap(),
            library.get::<unsafe extern "C" fn(*mut u64)>(b"hooke_emu_live").unwrap(),
            library.get::<unsafe extern "C" fn()>(b"hooke_emu_forget").unwrap(),
            library
                .get::<unsafe extern "C" fn() -> *const std::ffi::c_char>(b"hooke_emu_failed_call")
                .unwrap(),
        )
    };
    let count_live = || {
        let mut counts = [0u64; 7];
        // SAFETY: as above.
        unsafe { live(counts.as_mut_ptr()) };
        counts
    };
    // Once before counting: the library itself is looked at only the first time.
    scenario().unwrap();
    // SAFETY: as above.
    unsafe { fail_at(0, 0) };
    scenario().unwrap();
    assert_eq!(count_live(), [0; 7], "without any failure");
    // SAFETY: as above.
    let total = unsafe { calls() };
    assert!(total > 200, "{total} calls");
    for n in (1..=total).step_by(stride) {
        // SAFETY: as above.
        unsafe { fail_at(n, code) };
        let Err(error) = scenario() else {
            // SAFETY: as above; the text lives as long as the library.
            let call = unsafe { std::ffi::CStr::from_ptr(failed_call()) };
            panic!("call {n} of {total}, {call:?}, failed unnoticed");
        };
        let typed = matches!(error, Error::Device { .. } | Error::OutOfMemory { .. });
        assert!(typed && error.exit_code() == 5, "call {n}: {error:?}");
        // A destroy that fails loses its handle; nothing else may.
        let counts = count_live();
        assert!(counts.iter().sum::<u64>() <= 1, "call {n} leaks {counts:?}: {error}");
        // SAFETY: as above. What was lost is forgotten before the next round.
        unsafe { forget() };
    }
    println!("{total} failures came back");
}

/// Not a test of its own: does what the parent asks for.
#[test]
fn child() {
    if let Ok(scenario) = std::env::var(SCENARIO) {
        let (code, stride) = scenario.split_once('/').unwrap();
        fail_at_every_call(code.parse().unwrap(), stride.parse().unwrap());
    }
}

#[test]
fn a_failure_at_any_call_of_a_training_step_is_a_typed_error_and_leaves_nothing_alive() {
    // A failed launch at every call; an illegal address and no memory, which other code handles, at
    // some.
    for code in ["719/1", "700/13", "2/7"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cuda::faults::child", "--nocapture", "--test-threads", "1"])
            .env(SCENARIO, code)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "code {code}: {text}");
        assert!(text.contains("failures came back"), "code {code}: {text}");
        assert!(!text.contains("panicked"), "code {code}: {text}");
    }
}

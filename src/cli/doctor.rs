//! `hooke doctor`: what this binary and this machine can do.

use super::{print_json, print_line};
use crate::cuda::images::{IMAGES, TOOLCHAIN};
use crate::cuda::{CudaDevice, driver_version};
use crate::device::Device;
use crate::doctor::{Check, check_kernels, verdict};
use crate::error::Result;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of the GPU to look at
    #[arg(long, default_value_t = 0, value_name = "N")]
    gpu: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    /// What compiled the kernels.
    kernels: Option<&'static str>,
    num_kernels: usize,
    threads: usize,
    driver_cuda: Option<String>,
    gpu: Option<Gpu>,
    checks: Vec<Check>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Gpu {
    name: String,
    compute_capability: String,
    num_multiprocessors: u32,
    memory_bytes: usize,
    free_bytes: usize,
}

pub(super) fn run(args: Args) -> Result<()> {
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernels: TOOLCHAIN.ok(),
        num_kernels: IMAGES.iter().map(|image| image.kernels.len()).sum(),
        threads: rayon::current_num_threads(),
        driver_cuda: None,
        gpu: None,
        checks: Vec::new(),
        problems: Vec::new(),
    };
    let result = examine(&args, &mut report);
    if let Err(error) = &result {
        report.problems.push(error.to_string());
    }
    if args.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    result
}

fn examine(args: &Args, report: &mut Report) -> Result<()> {
    let version = driver_version()?;
    report.driver_cuda = Some(format!("{}.{}", version / 1000, version % 1000 / 10));
    let cuda = CudaDevice::open(args.gpu)?;
    let properties = cuda.properties();
    let (major, minor) = properties.compute_capability;
    report.gpu = Some(Gpu {
        name: properties.name.clone(),
        compute_capability: format!("{major}.{minor}"),
        num_multiprocessors: properties.num_multiprocessors,
        memory_bytes: properties.memory_bytes,
        free_bytes: cuda.memory_info()?.0,
    });
    let device = Device::Cuda(cuda);
    report.checks = check_kernels(&device)?;
    device.close()?;
    verdict(&report.checks)
}

fn print(report: &Report) -> Result<()> {
    print_line(&format!("hooke {}, {} threads", report.version, report.threads))?;
    print_line(&match TOOLCHAIN {
        Ok(toolchain) => format!("kernels: {} by {toolchain}", report.num_kernels),
        Err(why) => format!("kernels: none: {why}"),
    })?;
    if let Some(version) = &report.driver_cuda {
        print_line(&format!("driver: CUDA {version}"))?;
    }
    if let Some(gpu) = &report.gpu {
        let gibibytes = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
        print_line(&format!(
            "gpu: {}, compute capability {}, {} multiprocessors, {:.1} of {:.1} GiB free",
            gpu.name,
            gpu.compute_capability,
            gpu.num_multiprocessors,
            gibibytes(gpu.free_bytes),
            gibibytes(gpu.memory_bytes)
        ))?;
    }
    for check in &report.checks {
        let verdict = if check.passed { "ok" } else { "FAILED" };
        print_line(&format!("  {:<28} {verdict:<7} {}", check.name, check.detail))?;
    }
    Ok(())
}

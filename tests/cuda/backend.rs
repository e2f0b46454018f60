//! Memory, launches and their checks, with kernels of kernels/conformance.

use super::{bits, conformance_device, cuda, nans};
use crate::emu::device::Trial;
use hooke::cuda::{CudaDevice, KernelSpec, Param};
use hooke::device::Device;
use hooke::dtype::DType;
use hooke::error::Error;
use hooke::tensor::{Tensor, View, ViewMut};
use std::sync::Arc;

/// out = x, with the first word of every four doubled; 64 threads of 16 bytes.
static DOUBLE: KernelSpec = KernelSpec {
    module: "memory",
    entry: "conform_hints",
    params: &[Param::Pointer, Param::Pointer],
    threads: 64,
};

fn operands(device: &Device) -> (Tensor, Tensor) {
    let x: Vec<i32> = (0..256).collect();
    let x = Tensor::from_slice(device, "x", [256], &x).unwrap();
    (Tensor::zeros(device, "out", [256], DType::I32).unwrap(), x)
}

#[test]
fn a_kernel_runs_and_its_result_comes_back() {
    let cuda = conformance_device();
    let device = Device::Cuda(Arc::clone(&cuda));
    for seed in 0..4 {
        let trial = Trial::begin(seed);
        let (mut out, x) = operands(&device);
        let (mut out_view, x_view) = (out.view_mut(), x.view());
        cuda.launch(&DOUBLE).output(&mut out_view).input(&x_view).run().unwrap();
        let want: Vec<i32> = (0..256).map(|i| if i % 4 == 0 { 2 * i } else { i }).collect();
        assert_eq!(out.view().to_vec::<i32>().unwrap(), want);
        assert_eq!(trial.end(), "");
    }
    drop(device);
    cuda.close().unwrap();
}

#[test]
fn views_address_the_same_elements_as_on_the_host() {
    let device = Device::Cuda(cuda());
    let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let mut t = Tensor::from_slice(&device, "t", [4, 3], &values).unwrap();
    assert_eq!(t.view().slice_rows(1, 2).to_vec::<f32>().unwrap(), &values[3..9]);
    t.view_mut().slice_rows(3, 1).copy_from_host(&[7.0f32; 3]).unwrap();
    let (mut front, mut back) = t.view_mut().split_rows(1);
    front.clear().unwrap();
    back.reborrow().slice_rows(0, 1).reshape([3, 1]).copy_from_host(&[1.0f32, 2.0, 3.0]).unwrap();
    let want = [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 8.0, 7.0, 7.0, 7.0];
    assert_eq!(t.view().to_f64_vec().unwrap(), want);
    let mut copy = nans(&device, [12], DType::F32);
    assert!(copy.view().to_f64_vec().unwrap().iter().all(|x| x.is_nan()));
    copy.view_mut().copy_from(&t.view()).unwrap();
    assert_eq!(bits(copy.view()), bits(t.view()));
    let mut host = vec![0.0f32; 12];
    ViewMut::from_host(&mut host, [12]).copy_from(&t.view()).unwrap();
    assert_eq!(host[..6], [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    copy.clear().unwrap();
    assert_eq!(copy.view().to_f64_vec().unwrap(), [0.0; 12]);
}

#[test]
fn uploads_larger_and_more_than_the_staging_memory_arrive() {
    let device = Device::Cuda(cuda());
    let large: Vec<i32> = (0..1_000_000).collect();
    let mut t = Tensor::from_slice(&device, "t", [1_000_000], &large).unwrap();
    assert!(t.view().to_vec::<i32>().unwrap() == large);
    for i in 0..20i32 {
        let piece: Vec<i32> = (0..250_000).map(|k| k ^ i).collect();
        let rows = t.view_mut().slice_rows(250_000 * (i as usize % 4), 250_000);
        rows.copy_from_host(&piece).unwrap();
        drop(piece);
    }
    let got = t.view().to_vec::<i32>().unwrap();
    for (quarter, got) in got.chunks(250_000).enumerate() {
        let last = 16 + quarter as i32;
        assert!(got.iter().enumerate().all(|(k, &x)| x == k as i32 ^ last), "quarter {quarter}");
    }
}

#[test]
fn empty_tensors_need_no_memory_and_no_launch() {
    let cuda = conformance_device();
    let device = Device::Cuda(Arc::clone(&cuda));
    let mut out = Tensor::zeros(&device, "out", [0, 5], DType::F32).unwrap();
    let x = Tensor::from_slice::<f32>(&device, "x", [0], &[]).unwrap();
    let (mut out_view, x_view) = (out.view_mut(), x.view());
    cuda.launch(&DOUBLE).grid([0, 1, 1]).output(&mut out_view).input(&x_view).run().unwrap();
    assert_eq!(out.view().to_f64_vec().unwrap(), [] as [f64; 0]);
}

/// The message of a launch that must be refused.
#[track_caller]
fn refusal(result: hooke::error::Result<()>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 5);
    error.to_string()
}

fn with(params: &'static [Param], threads: u32) -> &'static KernelSpec {
    Box::leak(Box::new(KernelSpec { params, threads, ..DOUBLE }))
}

#[test]
fn a_launch_that_does_not_fit_its_kernel_is_refused_before_the_driver_sees_it() {
    let cuda = conformance_device();
    let other = conformance_device();
    let device = Device::Cuda(Arc::clone(&cuda));
    let (out, x) = operands(&device);
    let (far, _) = operands(&Device::Cuda(other));
    let (out, x, far) = (out.view(), x.view(), far.view());
    let host = [0i32; 4];
    let host = View::from_host(&host, [4]);
    let start = |spec: &'static KernelSpec| cuda.launch(spec);

    let text = refusal(start(&DOUBLE).input(&out).run());
    assert!(text.contains("conform_hints") && text.contains("1 arguments, 2 declared"), "{text}");
    let text = refusal(start(&DOUBLE).input(&out).i32(3).run());
    assert!(text.contains("argument 1 is I32, declared Pointer"), "{text}");
    let text = refusal(start(&DOUBLE).input(&out).input(&x).null().run());
    assert!(text.contains("argument 2 is one too many"), "{text}");
    let text = refusal(start(&DOUBLE).input(&out).input(&host).run());
    assert!(text.contains("operand 1 is on the host") && text.contains("[256] [4]"), "{text}");
    let text = refusal(start(&DOUBLE).input(&far).input(&x).run());
    assert!(text.contains("operand 0 is on another device"), "{text}");
    let text = refusal(start(&DOUBLE).grid([1, 70_000, 1]).input(&out).input(&x).run());
    assert!(text.contains("grid 1x70000x1 of 64 threads"), "{text}");
    let text = refusal(start(with(&[Param::I32], 64)).dim(1 << 31).run());
    assert!(text.contains("2147483648 does not fit"), "{text}");

    // What only the compiled kernel can tell.
    const P: Param = Param::Pointer;
    let text = refusal(start(with(&[P, P, P], 64)).input(&out).input(&x).null().run());
    assert!(text.contains("3 parameters declared, 2 compiled"), "{text}");
    let text = refusal(start(with(&[P], 64)).input(&out).run());
    assert!(text.contains("more than the 1 parameters declared"), "{text}");
    let text = refusal(start(with(&[P, Param::I32], 64)).input(&out).i32(1).run());
    assert!(text.contains("parameter 1 has 8 bytes, 4 declared"), "{text}");
    let text = refusal(start(with(&[P, P], 128)).input(&out).input(&x).run());
    assert!(text.contains("128 threads per block, compiled for 64"), "{text}");
    let shared = start(&DOUBLE).shared_bytes(300 << 10).input(&out).input(&x).run();
    assert!(refusal(shared).contains("bytes of shared memory, this GPU has"));
    let entry = Box::leak(Box::new(KernelSpec { entry: "no_such", ..DOUBLE }));
    let text = refusal(start(entry).input(&out).input(&x).run());
    assert!(text.contains("no kernel no_such in memory"), "{text}");
    let module = Box::leak(Box::new(KernelSpec { module: "no_such", ..DOUBLE }));
    let text = refusal(start(module).input(&out).input(&x).run());
    assert!(text.contains("no kernels/no_such.cu"), "{text}");

    // After all this the device still works.
    cuda.launch(&DOUBLE).input(&out).input(&x).shared_bytes(100 << 10).run().unwrap();
    assert_eq!(out.to_vec::<i32>().unwrap()[4], 8);
}

#[test]
fn planned_memory_is_handed_out_in_order_and_nothing_beyond_it_once_sealed() {
    let cuda: Arc<CudaDevice> = conformance_device();
    let device = Device::Cuda(Arc::clone(&cuda));
    cuda.reserve(3 * 256).unwrap();
    let a = Tensor::from_slice(&device, "a", [64], &[1.0f32; 64]).unwrap();
    let b = Tensor::from_slice(&device, "b", [65], &[2.0f32; 65]).unwrap();
    cuda.scratch("test.scratch", 1000).unwrap();
    let seal = cuda.seal();
    assert_eq!(cuda.used_bytes(), (3 * 256, 1000));
    assert_eq!(a.view().to_f64_vec().unwrap(), [1.0; 64]);
    assert_eq!(b.view().to_f64_vec().unwrap(), [2.0; 65]);
    cuda.scratch("test.scratch", 1000).unwrap();
    let text = refusal(cuda.scratch("test.scratch", 1001).map(drop));
    assert!(text.contains("1001 bytes for test.scratch were not planned"), "{text}");
    let text = refusal(Tensor::zeros(&device, "c", [1], DType::F32).map(drop));
    assert!(text.contains("4 bytes for c were not planned"), "{text}");
    drop(seal);
    Tensor::zeros(&device, "c", [1], DType::F32).unwrap();
}

#[test]
fn too_much_memory_is_a_typed_error_and_leaves_the_device_usable() {
    let device = Device::Cuda(cuda());
    let error = Tensor::zeros(&device, "the moon", [1 << 40], DType::F32).unwrap_err();
    assert!(
        matches!(&error, Error::OutOfMemory { what, bytes }
        if what.contains("the moon") && *bytes == 4 << 40),
        "{error:?}"
    );
    let t = Tensor::from_slice(&device, "t", [1], &[5i32]).unwrap();
    assert_eq!(t.view().to_vec::<i32>().unwrap(), [5]);
}

// Fences. __threadfence() and __syncthreads() are used under their CUDA names.
//
// The async proxy (TMA, wgmma operands in shared memory) does not see ordinary writes by itself:
// each *writing* thread executes fence_proxy_async, then a barrier orders it before the thread that
// issues the TMA or wgmma. A fence by the issuer alone is reported by the emulator.
#pragma once
#include "compiler.cuh"

#if PTX_SM90
namespace ptx {

// fence.proxy.async.shared::cta: this thread's writes to shared memory, for TMA stores and wgmma.
DEVICE void fence_proxy_async() {
#if EMULATED
    emu::fence_proxy_async();
#else
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// fence.proxy.async.global: between ordinary accesses and TMA accesses to global memory.
DEVICE void fence_proxy_async_global() {
#if EMULATED
    emu::fence_proxy_async_global();
#else
    asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
}

// fence.mbarrier_init: makes mbarrier_init visible to the async proxy and to the cluster.
DEVICE void fence_mbarrier_init() {
#if EMULATED
    emu::fence_mbarrier_init();
#else
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// fence.acq_rel.cluster.
DEVICE void fence_cluster() {
#if EMULATED
    emu::thread_fence();
#else
    asm volatile("fence.acq_rel.cluster;" ::: "memory");
#endif
}

}  // namespace ptx
#endif

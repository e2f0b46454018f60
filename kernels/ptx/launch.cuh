// Programmatic dependent launch (sm_90) and special registers.
#pragma once
#include "compiler.cuh"

namespace ptx {

#if PTX_SM90
// griddepcontrol.wait: until the kernel before this one in the stream has finished and its results
// are visible. Needed before the first read of them when the launch allows overlap. The emulator
// never overlaps kernels of one stream, so it cannot see this missing.
DEVICE void wait_for_previous_kernel() {
#if !EMULATED
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// griddepcontrol.launch_dependents: the next kernel may start.
DEVICE void allow_next_kernel() {
#if !EMULATED
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#endif

// Nanoseconds of a clock all multiprocessors share. For measuring only.
DEVICE u64 global_timer() {
#if EMULATED
    return emu::global_timer();
#else
    u64 ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
#endif
}

// Which multiprocessor this block runs on. For measuring only: results must not depend on it.
DEVICE u32 multiprocessor_id() {
#if EMULATED
    return emu::multiprocessor_id();
#else
    u32 id;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
    return id;
#endif
}

}  // namespace ptx

// Named barriers of a block: ids 1 to 15 (0 is __syncthreads), counts in multiples of 32 threads.
#pragma once
#include "compiler.cuh"

namespace ptx {

// bar.sync: arrives and waits until `threads` threads have arrived. Orders memory like
// __syncthreads, among those threads.
DEVICE void barrier_sync(int id, int threads) {
#if EMULATED
    emu::barrier_sync(id, threads);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// bar.arrive: arrives without waiting; what this thread wrote is visible to those who sync.
DEVICE void barrier_arrive(int id, int threads) {
#if EMULATED
    emu::barrier_arrive(id, threads);
#else
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

}  // namespace ptx

// cp.async (sm_80): copies from global to shared memory without passing through registers.
//
// Each thread commits its copies as groups and waits for its own groups; after the wait the data is
// as if this thread had written it, so other threads still need a barrier.
#pragma once
#include "compiler.cuh"

namespace ptx {

// cp.async.cg, 16 bytes, both sides 16-byte aligned. Only the first `source_bytes` are read, the
// rest is filled with zeros; with 0 the source is not read, but must still be aligned.
DEVICE void cp_async_16(u32 destination, const void* source, u32 source_bytes = 16) {
#if EMULATED
    emu::cp_async(destination, source, 16, source_bytes);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source),
                 "r"(source_bytes)
                 : "memory");
#endif
}

// cp.async.ca of 8 bytes, for rows that are not 16-byte aligned.
DEVICE void cp_async_8(u32 destination, const void* source, u32 source_bytes = 8) {
#if EMULATED
    emu::cp_async(destination, source, 8, source_bytes);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(destination), "l"(source),
                 "r"(source_bytes)
                 : "memory");
#endif
}

// cp.async.ca of 4 bytes.
DEVICE void cp_async_4(u32 destination, const void* source, u32 source_bytes = 4) {
#if EMULATED
    emu::cp_async(destination, source, 4, source_bytes);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(destination), "l"(source),
                 "r"(source_bytes)
                 : "memory");
#endif
}

// cp.async.commit_group: closes the group of all copies since the last commit; it may be empty.
DEVICE void cp_async_commit() {
#if EMULATED
    emu::cp_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// cp.async.wait_group: until at most the PENDING newest groups of this thread are unfinished.
template <int PENDING>
DEVICE void cp_async_wait() {
#if EMULATED
    emu::cp_async_wait(PENDING);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// cp.async.mbarrier.arrive.noinc: arrives at the mbarrier when all earlier copies of this thread
// are done. The arrival counts towards the number given to mbarrier_init.
DEVICE void cp_async_mbarrier_arrive(u32 mbarrier) {
#if EMULATED
    emu::cp_async_mbarrier_arrive(mbarrier);
#else
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(mbarrier) : "memory");
#endif
}

}  // namespace ptx

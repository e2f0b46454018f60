// mbarrier: a counter of arrivals and of bytes still to come, in 8 bytes of shared memory.
//
// A phase ends when all arrivals were made and all expected bytes have come; the next phase then
// expects the same number of arrivals. A waiter names the parity (0, 1, 0, ...) of the phase it
// waits for. A wait acquires what the arrivals released, and what TMA wrote with this barrier.
#pragma once
#include "compiler.cuh"

#if PTX_SM90
namespace ptx {

DEVICE void mbarrier_init(u32 mbarrier, u32 arrivals) {
#if EMULATED
    emu::mbarrier_init(mbarrier, arrivals);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(mbarrier), "r"(arrivals)
                 : "memory");
#endif
}

// Ends the use of the 8 bytes as a barrier.
DEVICE void mbarrier_invalidate(u32 mbarrier) {
#if EMULATED
    emu::mbarrier_invalidate(mbarrier);
#else
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(mbarrier) : "memory");
#endif
}

DEVICE void mbarrier_arrive(u32 mbarrier) {
#if EMULATED
    emu::mbarrier_arrive(mbarrier, 1);
#else
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(mbarrier) : "memory");
#endif
}

DEVICE void mbarrier_arrive(u32 mbarrier, u32 count) {
#if EMULATED
    emu::mbarrier_arrive(mbarrier, count);
#else
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(mbarrier),
                 "r"(count)
                 : "memory");
#endif
}

// Arrives, and announces `bytes` that TMA will write in this phase.
DEVICE void mbarrier_arrive_expect_tx(u32 mbarrier, u32 bytes) {
#if EMULATED
    emu::mbarrier_expect_tx(mbarrier, bytes, true);
#else
    asm volatile(
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(mbarrier),
        "r"(bytes)
        : "memory");
#endif
}

// Announces bytes without arriving.
DEVICE void mbarrier_expect_tx(u32 mbarrier, u32 bytes) {
#if EMULATED
    emu::mbarrier_expect_tx(mbarrier, bytes, false);
#else
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(mbarrier),
                 "r"(bytes)
                 : "memory");
#endif
}

// True if the phase of this parity has ended. It may return false without a reason (the hardware
// gives up after a while), so it belongs in a loop: mbarrier_wait.
DEVICE bool mbarrier_try_wait(u32 mbarrier, u32 parity) {
#if EMULATED
    return emu::mbarrier_try_wait(mbarrier, parity);
#else
    u32 done;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(mbarrier), "r"(parity)
        : "memory");
    return done != 0;
#endif
}

DEVICE void mbarrier_wait(u32 mbarrier, u32 parity) {
    while (!mbarrier_try_wait(mbarrier, parity)) {
    }
}

// The same for what other blocks of the cluster released (their remote arrivals and writes).
DEVICE bool mbarrier_try_wait_cluster(u32 mbarrier, u32 parity) {
#if EMULATED
    return emu::mbarrier_try_wait(mbarrier, parity);
#else
    u32 done;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(mbarrier), "r"(parity)
        : "memory");
    return done != 0;
#endif
}

DEVICE void mbarrier_wait_cluster(u32 mbarrier, u32 parity) {
    while (!mbarrier_try_wait_cluster(mbarrier, parity)) {
    }
}

// Arrives at a barrier of another block of the cluster; the address is from cluster_map.
DEVICE void mbarrier_arrive_remote(u32 mapped_mbarrier) {
#if EMULATED
    emu::mbarrier_arrive(mapped_mbarrier, 1);
#else
    asm volatile(
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(mapped_mbarrier)
        : "memory");
#endif
}

}  // namespace ptx
#endif

// wgmma (sm_90a): D (64xN, f32) = A (64x16, bf16) * B (16xN, bf16) (+ D), by one warpgroup,
// asynchronously. B comes from shared memory, A from shared memory or from registers.
//
// Order of calls: wgmma_fence, any number of wgmma on the same accumulators, wgmma_commit,
// wgmma_wait. Until the wait, accumulators must not be touched and shared memory not rewritten.
// Fragment of D, with w the warp in the warpgroup, g = lane / 4, t = lane % 4:
//   d[4 j], d[4 j + 1] = D[16 w + g][8 j + 2 t, + 1]
//   d[4 j + 2], d[4 j + 3] = D[16 w + g + 8][8 j + 2 t, + 1]
// A in registers is the A fragment of mma_m16n8k16, for rows 16 w to 16 w + 15.
#pragma once
#include "compiler.cuh"

#if PTX_SM90
namespace ptx {

// Which index of an operand is contiguous in shared memory.
enum Major { K_MAJOR = 0, MN_MAJOR = 1 };

// Swizzle codes of a matrix descriptor (not those of a tensor map).
enum Swizzle { SWIZZLE_NONE = 0, SWIZZLE_128B = 1, SWIZZLE_64B = 2, SWIZZLE_32B = 3 };

// A matrix descriptor. K-major, swizzled: `stride` is the distance of 8-row groups, `leading` is
// unused. MN-major: `leading` is the distance of swizzle-wide column groups, `stride` that of
// groups of 8 k rows. The tile starts on a boundary of 1024, 512 or 256 bytes for a swizzle of 128,
// 64 or 32 bytes (advancing along K by 32 bytes inside a swizzled row is allowed).
HOST_DEVICE u64 matrix_descriptor(u32 address, u32 leading_bytes, u32 stride_bytes, Swizzle s) {
    return (u64)((address & 0x3ffffu) >> 4) | (u64)(leading_bytes >> 4) << 16 |
           (u64)(stride_bytes >> 4) << 32 | (u64)s << 62;
}

// The 128-byte swizzle TMA and wgmma apply: bits 4-6 of the address ^= bits 7-9.
HOST_DEVICE u32 swizzle_128b(u32 address) { return address ^ ((address >> 7 & 7u) << 4); }
HOST_DEVICE u32 swizzle_64b(u32 address) { return address ^ ((address >> 7 & 3u) << 4); }
HOST_DEVICE u32 swizzle_32b(u32 address) { return address ^ ((address >> 7 & 1u) << 4); }

// Before the first wgmma and whenever registers of A or D were written since the last one.
DEVICE void wgmma_fence(EMU_SITE_ONLY) {
#if EMULATED
    emu::wgmma_fence(site);
#else
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

DEVICE void wgmma_commit(EMU_SITE_ONLY) {
#if EMULATED
    emu::wgmma_commit(site);
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Until at most the PENDING newest groups are unfinished.
template <int PENDING>
DEVICE void wgmma_wait(EMU_SITE_ONLY) {
#if EMULATED
    emu::wgmma_wait(PENDING, site);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
#endif
}

#if EMULATED
// wgmma(d, a, b, accumulate): N is twice the number of accumulators. accumulate 0: D = A B.
template <Major A_MAJOR = K_MAJOR, Major B_MAJOR = K_MAJOR, int R>
DEVICE void wgmma(float (&d)[R], u64 a, u64 b, int accumulate EMU_SITE) {
    emu::wgmma(d, 2 * R, nullptr, a, b, accumulate != 0, A_MAJOR, B_MAJOR, site);
}

template <Major B_MAJOR = K_MAJOR, int R>
DEVICE void wgmma(float (&d)[R], const u32 (&a)[4], u64 b, int accumulate EMU_SITE) {
    emu::wgmma(d, 2 * R, a, 0, b, accumulate != 0, K_MAJOR, B_MAJOR, site);
}
#else
#include "wgmma_shapes.cuh"
#endif

}  // namespace ptx
#endif

// Conformance of instructions together: a persistent, warp-specialised GEMM for sm_90a.
//
// C (M x N, bf16) = A (M x K) * B (N x K)^T. Warpgroup 0 brings tiles by TMA through a ring of
// mbarriers, warpgroups 1 and 2 multiply 64x128 each by wgmma and store by TMA. 128x128x64 tiles.
// MUTANT selects a planted bug for the mutation tests (240, 241, 243 are legal variants).
#include "../ptx/barrier.cuh"
#include "../ptx/bf16.cuh"
#include "../ptx/fence.cuh"
#include "../ptx/mbarrier.cuh"
#include "../ptx/memory.cuh"
#include "../ptx/regs.cuh"
#include "../ptx/tma.cuh"
#include "../ptx/warp.cuh"
#include "../ptx/wgmma.cuh"

#ifndef MUTANT
#define MUTANT 0
#endif
#define MUTATED(k) (MUTANT == (k))

static constexpr int TILE_M = 128, TILE_N = 128, TILE_K = 64, STAGES = 3;
static constexpr u32 A_BYTES = TILE_M * TILE_K * 2, B_BYTES = TILE_N * TILE_K * 2;
static constexpr u32 STAGE_BYTES = A_BYTES + B_BYTES, BOX_BYTES = 64 * 64 * 2;
// Shared memory: STAGES x (A, B) | per consumer two 64x64 boxes of C | full and empty barriers.

struct Ring {
    u32 full, empty;
    int stage = 0;
    u32 parity = 0;

    DEVICE void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

DEVICE void produce(Ring ring, u32 base, const TensorMap* a, const TensorMap* b, int tiles_m,
                    int tiles_n, int steps) {
    for (int tile = (int)blockIdx.x; tile < tiles_m * tiles_n; tile += (int)gridDim.x) {
        int m0 = tile / tiles_n * TILE_M, n0 = tile % tiles_n * TILE_N;
        for (int step = 0; step < steps; step++) {
            u32 at = base + ring.stage * STAGE_BYTES, full = ring.full + 8 * ring.stage;
            u32 parity = MUTATED(221) ? 1 : MUTATED(204) ? ring.parity : ring.parity ^ 1;
            if (!MUTATED(202)) ptx::mbarrier_wait(ring.empty + 8 * ring.stage, parity);
            ptx::mbarrier_arrive_expect_tx(full, MUTATED(208) ? A_BYTES : STAGE_BYTES);
            if (MUTATED(223)) ptx::tma_load(at, a, full, m0, step * TILE_K);
            else ptx::tma_load(at, a, full, step * TILE_K, m0);
            ptx::tma_load(at + A_BYTES, b, full, step * TILE_K, n0);
            ring.advance();
        }
    }
}

DEVICE void wait_full(u32 full, u32 parity, int lane) {
    if (MUTATED(240)) {
        if (lane == 0) ptx::mbarrier_wait(full, parity);
        __syncwarp();
    } else if (MUTATED(244)) {
        if (lane == 0) ptx::mbarrier_wait(full, parity);
    } else if (MUTATED(253)) {
        ptx::mbarrier_try_wait(full, parity);
    } else if (!MUTATED(201)) {
        ptx::mbarrier_wait(full, MUTATED(203) ? parity ^ 1 : parity);
    }
}

// The stage is free when all four warps of the warpgroup have finished reading it.
DEVICE void release_stage(u32 empty, int consumer, int lane) {
    bool first = threadIdx.x % 128 == 0;
    if (MUTATED(241)) {
        if (lane == 0) ptx::mbarrier_arrive(empty);
    } else if (MUTATED(243)) {
        ptx::mbarrier_arrive(empty);
    } else {
        if (!MUTATED(228))
            ptx::barrier_sync(MUTATED(250) ? 1 : 1 + consumer, MUTATED(219) ? 256 : 128);
        if (first) ptx::mbarrier_arrive(empty);
    }
}

DEVICE void multiply_stage(float (&d)[64], u32 at, int consumer, bool accumulate) {
    if (!MUTATED(205)) ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) {
        u32 advance = MUTATED(212) ? k * 16 : k * 32;
        u64 a = ptx::matrix_descriptor(at + consumer * 64 * 128 + advance, 16,
                                       MUTATED(211) ? 512 : 1024,
                                       MUTATED(225) ? ptx::SWIZZLE_64B : ptx::SWIZZLE_128B);
        u64 b = ptx::matrix_descriptor(at + A_BYTES + advance, 16, 1024, ptx::SWIZZLE_128B);
        ptx::wgmma(d, a, b, MUTATED(220) ? 1 : accumulate || k != 0);
    }
    if (MUTATED(251)) d[5] *= 2.0f;
    if (!MUTATED(218)) ptx::wgmma_commit();
}

// Registers to swizzled shared memory, then one thread stores both boxes.
DEVICE void store_tile(const float (&d)[64], unsigned char* shared, u32 staging, const TensorMap* c,
                       int m0, int n0, int consumer) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32 % 4;
    bool first = threadIdx.x % 128 == 0;
    if (first && !MUTATED(217)) ptx::bulk_wait_read<0>();  // the last tile has left
    if (!MUTATED(227)) ptx::barrier_sync(1 + consumer, 128);
#pragma unroll
    for (int i = 0; i < 32; i++) {
        int row = warp * 16 + lane / 4 + (i & 1) * 8, column = (i >> 1) * 8 + lane % 4 * 2;
        u32 at = staging + column / 64 * BOX_BYTES + row * 128 + column % 64 * 2;
        u32 offset = (MUTATED(210) ? at : ptx::swizzle_128b(at)) - ptx::shared_address(shared);
        *(u32*)(shared + offset) = ptx::pack_bf16x2(d[i * 2], d[i * 2 + 1]);
    }
    if (!MUTATED(215) && !MUTATED(242)) ptx::fence_proxy_async();
    if (!MUTATED(216)) ptx::barrier_sync(1 + consumer, 128);
    if (!first) return;
    if (MUTATED(242)) ptx::fence_proxy_async();
    ptx::tma_store(c, staging, n0, m0 + consumer * 64);
    ptx::tma_store(c, staging + BOX_BYTES, n0 + 64, m0 + consumer * 64);
    ptx::bulk_commit();
}

DEVICE void consume(Ring ring, unsigned char* shared, u32 base, u32 staging, const TensorMap* c,
                    int tiles_m, int tiles_n, int steps, int consumer) {
    int lane = (int)threadIdx.x % 32;
    float d[64];
    for (int tile = (int)blockIdx.x; tile < tiles_m * tiles_n; tile += (int)gridDim.x) {
        for (int step = 0; step < steps; step++) {
            u32 empty = ring.empty + 8 * ring.stage;
            wait_full(ring.full + 8 * ring.stage, ring.parity, lane);
            multiply_stage(d, base + ring.stage * STAGE_BYTES, consumer, step != 0);
            if (MUTATED(207) && threadIdx.x % 128 == 0) ptx::mbarrier_arrive(empty);
            if (MUTATED(226)) ptx::wgmma_wait<1>();
            else if (!MUTATED(206)) ptx::wgmma_wait<0>();
            if (!MUTATED(207)) release_stage(empty, consumer, lane);
            ring.advance();
        }
        store_tile(d, shared, staging, c, tile / tiles_n * TILE_M, tile % tiles_n * TILE_N,
                   consumer);
    }
    if (threadIdx.x % 128 == 0 && !MUTATED(224)) ptx::bulk_wait<0>();
}

KERNEL(pipeline_sm90, 384, const __grid_constant__ TensorMap c, const __grid_constant__ TensorMap a,
       const __grid_constant__ TensorMap b, int m, int n, int depth) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared);
    if (MUTATED(222)) base += 128;
    u32 staging = base + STAGES * STAGE_BYTES, barriers = staging + 4 * BOX_BYTES;
    Ring ring{barriers, barriers + 8 * STAGES};
    int warp = (int)threadIdx.x / 32, warpgroup = (int)threadIdx.x / 128;
    int tiles_m = (m + TILE_M - 1) / TILE_M, tiles_n = (n + TILE_N - 1) / TILE_N;
    int steps = (depth + TILE_K - 1) / TILE_K;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            ptx::mbarrier_init(ring.full + 8 * i, 1);
            u32 arrivals = MUTATED(209) ? 1 : MUTATED(241) ? 8 : MUTATED(243) ? 256 : 2;
            ptx::mbarrier_init(ring.empty + 8 * i, arrivals);
        }
        if (!MUTATED(213)) ptx::fence_mbarrier_init();
    }
    if (!MUTATED(214)) __syncthreads();
    if (warpgroup == 0) {
        ptx::release_registers<40>();
        if (warp == 0 && ptx::elect_one()) produce(ring, base, &a, &b, tiles_m, tiles_n, steps);
    } else {
        if (MUTATED(252) && warp == 5) __syncthreads();
        ptx::take_registers<232>();
        int consumer = warpgroup - 1;
        consume(ring, shared, base, staging + consumer * 2 * BOX_BYTES, &c, tiles_m, tiles_n, steps,
                consumer);
    }
}

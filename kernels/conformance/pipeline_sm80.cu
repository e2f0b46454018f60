// Conformance of instructions together: a double-buffered GEMM for sm_80.
//
// C (M x N, f32) = A (M x K, bf16) * B (N x K, bf16)^T, K a multiple of 8. 64x64x32 tiles, four
// warps. MUTANT selects a planted bug for the mutation tests (tests/mutants.rs); 0 is the correct
// kernel.
#include "../ptx/bf16.cuh"
#include "../ptx/cp_async.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/memory.cuh"
#include "../ptx/mma.cuh"

#ifndef MUTANT
#define MUTANT 0
#endif
#define MUTATED(k) (MUTANT == (k))

static constexpr int TILE_M = 64, TILE_N = 64, TILE_K = 32;
static constexpr u32 STAGE_BYTES = (TILE_M + TILE_N) * TILE_K * 2;

// Rows of 64 bytes in 16-byte chunks, XOR-swizzled so that ldmatrix has no bank conflicts.
DEVICE u32 tile_offset(int row, int chunk) {
    return (u32)(row * 64 + ((chunk ^ (row >> 1 & 3)) << 4));
}

DEVICE void load_tile(u32 shared, const bf16* matrix, int first_row, int rows, int first_k,
                      int depth) {
    for (int i = 0; i < 2; i++) {
        int index = (int)threadIdx.x + i * 128, row = index >> 2, chunk = index & 3;
        int r = first_row + row, k = first_k + chunk * 8;
        bool inside = r < rows && k < depth;
        if (MUTATED(108)) inside = k < depth;
        const bf16* source = inside ? matrix + (size_t)r * depth + k : matrix;
        ptx::cp_async_16(shared + tile_offset(row, chunk), source, inside ? 16 : 0);
    }
}

KERNEL(pipeline_sm80, 128, float* c, const bf16* a, const bf16* b, int m, int n, int depth) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int warp_m = (warp & 1) * 32, warp_n = (warp >> 1) * 32;
    int m0 = (int)blockIdx.y * TILE_M, n0 = (int)blockIdx.x * TILE_N;
    int steps = (depth + TILE_K - 1) / TILE_K;
    float acc[2][4][4] = {};

    load_tile(base, a, m0, m, 0, depth);
    load_tile(base + TILE_M * TILE_K * 2, b, n0, n, 0, depth);
    ptx::cp_async_commit();
    for (int step = 0; step < steps; step++) {
        u32 current = base + (step & 1) * STAGE_BYTES, next = base + (~step & 1) * STAGE_BYTES;
        if (MUTATED(110)) current = next;
        if (step + 1 < steps) {
            load_tile(next, a, m0, m, (step + 1) * TILE_K, depth);
            load_tile(next + TILE_M * TILE_K * 2, b, n0, n, (step + 1) * TILE_K, depth);
        }
        if (!MUTATED(105)) ptx::cp_async_commit();
        if (MUTATED(102)) ptx::cp_async_wait<2>();
        else if (!MUTATED(101)) ptx::cp_async_wait<1>();
        if (!MUTATED(103)) __syncthreads();  // what the other threads fetched
#pragma unroll
        for (int k16 = 0; k16 < 2; k16++) {
            u32 fa[2][4], fb[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int row = warp_m + i * 16 + (lane & 15), chunk = k16 * 2 + (lane >> 4);
                u32 at = MUTATED(106) ? (u32)(row * 64 + (chunk << 4)) : tile_offset(row, chunk);
                if (MUTATED(109)) ptx::ldmatrix_x4_trans(fa[i], current + at);
                else ptx::ldmatrix_x4(fa[i], current + at);
            }
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int row = warp_n + j * 16 + (lane & 7) + (lane >> 4) * 8;
                int chunk = k16 * 2 + (lane >> 3 & 1);
                if (MUTATED(111)) {
                    row = warp_n + j * 16 + (lane & 15);
                    chunk = k16 * 2 + (lane >> 4);
                }
                ptx::ldmatrix_x4(fb[j], current + TILE_M * TILE_K * 2 + tile_offset(row, chunk));
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    u32 pair[2] = {fb[j >> 1][(j & 1) * 2], fb[j >> 1][(j & 1) * 2 + 1]};
                    if (MUTATED(107)) {
                        u32 first = pair[0];
                        pair[0] = pair[1];
                        pair[1] = first;
                    }
                    ptx::mma_m16n8k16(acc[i][j], fa[i], pair);
                }
        }
        if (!MUTATED(104)) __syncthreads();  // readers are done before the buffer is refilled
    }
    int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
                int row = m0 + warp_m + i * 16 + g + (MUTATED(113) ? r & 1 : r >> 1) * 8;
                int column = n0 + warp_n + j * 8 + t * 2 + (r & 1);
                bool inside = row < m && (MUTATED(112) || column < n);
                if (inside) c[(size_t)row * n + column] = acc[i][j][r];
            }
}

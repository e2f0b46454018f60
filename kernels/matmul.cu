// Matrix product in bf16 with f32 accumulation, for sm_80 and newer.
//
//   out (M, N) = op(a) op(b) + bias, or out += ...
//
// One block computes one tile of the output: a ring of STAGES tiles of each operand, filled by
// cp.async while earlier ones go through ldmatrix into mma.sync m16n8k16. Sums over K run in
// ascending order in one accumulator per element, the same in every tile size and for every
// alignment, so the bits of a row depend on neither. Bias and the old output are added in f32 and
// the result is rounded once.
#include "matmul/epilogue.cuh"
#include "matmul/operand.cuh"
#include "ptx/memory.cuh"
#include "ptx/mma.cuh"

// A tile of WARPS_M x WARPS_N warps with WARP_M x WARP_N elements each.
template <int WARPS_M_, int WARPS_N_, int WARP_M_, int WARP_N_>
struct Shape {
    static constexpr int WARPS_N = WARPS_N_, WARP_M = WARP_M_, WARP_N = WARP_N_;
    static constexpr int TILE_M = WARPS_M_ * WARP_M, TILE_N = WARPS_N * WARP_N;
    static constexpr int THREADS = WARPS_M_ * WARPS_N_ * 32;
    static constexpr int STAGES = 4;
    static constexpr u32 STAGE_BYTES = (TILE_M + TILE_N) * TILE_DEPTH * 2;
    // The epilogue reuses the ring.
    static_assert(TILE_M * TILE_N * 4 <= STAGES * STAGE_BYTES, "the tile must fit as f32");
};
using Large = Shape<2, 4, 64, 32>;  // 128 x 128, 64 KiB of shared memory
using Small = Shape<2, 2, 32, 32>;  // 64 x 64, 32 KiB

// Rows of tiles that are walked together, column by column: about 16 x 16 tiles are at work at a
// time on the largest GPUs, and their operands stay in the second-level cache.
constexpr int GROUP = 16;

struct TileIndex {
    int m, n;
};

DEVICE TileIndex tile_of(int block, int tiles_m, int tiles_n) {
    int group = block / (GROUP * tiles_n), within = block % (GROUP * tiles_n);
    int rows = min(tiles_m - group * GROUP, GROUP);
    return {group * GROUP + within % rows, within / rows};
}

template <class S, Major MAJOR_A, Major MAJOR_B, bool ALIGNED, class Out>
DEVICE void multiply(Out* out, const bf16* a, const bf16* b, const bf16* bias, int accumulate,
                     int width_a, int width_b, int m, int n, int k) {
    using TileA = Tile<S::TILE_M, MAJOR_A>;
    using TileB = Tile<S::TILE_N, MAJOR_B>;
    DYNAMIC_SHARED(bytes);
    const SharedBytes shared = {bytes, ptx::shared_address(bytes)};
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int warp_m = warp / S::WARPS_N * S::WARP_M, warp_n = warp % S::WARPS_N * S::WARP_N;
    const TileIndex tile = tile_of((int)blockIdx.x, (m + S::TILE_M - 1) / S::TILE_M,
                                   (n + S::TILE_N - 1) / S::TILE_N);
    const int first_m = tile.m * S::TILE_M, first_n = tile.n * S::TILE_N;
    const int steps = (k + TILE_DEPTH - 1) / TILE_DEPTH;

    Fetcher<S::TILE_M, MAJOR_A, S::THREADS, ALIGNED> fetch_a(a, first_m, m, k, width_a);
    Fetcher<S::TILE_N, MAJOR_B, S::THREADS, ALIGNED> fetch_b(b, first_n, n, k, width_b);
    // Step s uses slot s % STAGES. A group is committed for every step, empty past the end, so that
    // "all but the newest STAGES - 2" always means "this step's".
    u32 read = 0, write = 0;
#pragma unroll
    for (int step = 0; step < S::STAGES - 1; step++) {
        if (step < steps) {
            fetch_a.fetch(shared, write);
            fetch_b.fetch(shared, write + TileA::BYTES);
        }
        ptx::cp_async_commit();
        write += S::STAGE_BYTES;
    }

    float sums[S::WARP_M / 16][S::WARP_N / 8][4] = {};
    for (int step = 0; step < steps; step++) {
        ptx::cp_async_wait<S::STAGES - 2>();
        __syncthreads();  // all threads' copies have landed, and the slot refilled next is read
        if (step + S::STAGES - 1 < steps) {
            fetch_a.fetch(shared, write);
            fetch_b.fetch(shared, write + TileA::BYTES);
        }
        ptx::cp_async_commit();  // of every step, see above
        write = write + S::STAGE_BYTES == S::STAGES * S::STAGE_BYTES ? 0 : write + S::STAGE_BYTES;
        const u32 tile_a = shared.address + read, tile_b = tile_a + TileA::BYTES;
#pragma unroll
        for (int k16 = 0; k16 < TILE_DEPTH; k16 += 16) {
            u32 fa[S::WARP_M / 16][4], fb[S::WARP_N / 16][4];
#pragma unroll
            for (int i = 0; i < S::WARP_M / 16; i++) {
                TileA::read_a(fa[i], tile_a, warp_m + 16 * i, k16);
            }
#pragma unroll
            for (int j = 0; j < S::WARP_N / 16; j++) {
                TileB::read_b(fb[j], tile_b, warp_n + 16 * j, k16);
            }
#pragma unroll
            for (int i = 0; i < S::WARP_M / 16; i++) {
#pragma unroll
                for (int j = 0; j < S::WARP_N / 8; j++) {
                    const u32 pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
                    ptx::mma_m16n8k16(sums[i][j], fa[i], pair);
                }
            }
        }
        read = read + S::STAGE_BYTES == S::STAGES * S::STAGE_BYTES ? 0 : read + S::STAGE_BYTES;
    }

    __syncthreads();  // all warps are done with the ring
    float* const staging = (float*)bytes;
    const int row = warp_m + lane / 4, column = warp_n + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < S::WARP_M / 16; i++) {
#pragma unroll
        for (int j = 0; j < S::WARP_N / 8; j++) {
            const float(&d)[4] = sums[i][j];
            int upper = staged<S::TILE_N>(row + 16 * i, column + 8 * j);
            int lower = staged<S::TILE_N>(row + 16 * i + 8, column + 8 * j);
            *(float2*)(staging + upper) = make_float2(d[0], d[1]);
            *(float2*)(staging + lower) = make_float2(d[2], d[3]);
        }
    }
    __syncthreads();  // the whole tile is staged
    write_tile<S::TILE_M, S::TILE_N, S::THREADS>(out, staging, bias, accumulate != 0, first_m,
                                                 first_n, m, n);
}

// Blocks per multiprocessor: 2 x 256 or 4 x 128 threads, 128 registers each.
#define MATMUL_OUT(name, shape, blocks, major_a, major_b, aligned, out_type)                       \
    KERNEL_MIN_BLOCKS(name, shape::THREADS, blocks, out_type* out, const bf16* a, const bf16* b,   \
                      const bf16* bias, int accumulate, int width_a, int width_b, int m, int n,    \
                      int k) {                                                                     \
        multiply<shape, Major::major_a, Major::major_b, aligned>(out, a, b, bias, accumulate,      \
                                                                 width_a, width_b, m, n, k);       \
    }
// The suffix is the type of the output.
#define MATMUL(name, shape, blocks, major_a, major_b, aligned)                     \
    MATMUL_OUT(name##_bf16, shape, blocks, major_a, major_b, aligned, bf16)        \
    MATMUL_OUT(name##_f32, shape, blocks, major_a, major_b, aligned, float)

// large, small: both operands have rows on 16-byte boundaries. any: width_a and width_b say how
// they are aligned.
MATMUL(matmul_nt_large, Large, 2, Depth, Depth, true)
MATMUL(matmul_nn_large, Large, 2, Depth, Extent, true)
MATMUL(matmul_tn_large, Large, 2, Extent, Extent, true)
MATMUL(matmul_nt_small, Small, 4, Depth, Depth, true)
MATMUL(matmul_nn_small, Small, 4, Depth, Extent, true)
MATMUL(matmul_tn_small, Small, 4, Extent, Extent, true)
MATMUL(matmul_nt_any, Small, 4, Depth, Depth, false)
MATMUL(matmul_nn_any, Small, 4, Depth, Extent, false)
MATMUL(matmul_tn_any, Small, 4, Extent, Extent, false)

// Matrix product in f32: plain multiply-adds from tiles in shared memory, one kernel for all
// layouts.
//
// For tests that compare tightly with the CPU reference and for training in f32; real work is in
// bf16 (matmul.cu). Sums over K run in ascending order in one accumulator per element.
#include "ptx/compiler.cuh"

constexpr int TILE = 32;        // rows and columns of the output per block
constexpr int DEPTH = 16;       // k per step
constexpr int THREADS = 256;    // 16 x 16, four elements each
constexpr int PITCH = TILE + 1;  // a column of k is written by consecutive threads

// tile[k][i] = operand[(first + i) * stride + (k0 + k) * stride_k], 0 outside. Consecutive threads
// follow the index that is contiguous in memory.
DEVICE void load(float* tile, const float* operand, int first, int extent, int k0, int depth,
                 long long stride, long long stride_k) {
    for (int index = (int)threadIdx.x; index < TILE * DEPTH; index += THREADS) {
        const int i = stride_k == 1 ? index / DEPTH : index % TILE;
        const int k = stride_k == 1 ? index % DEPTH : index / TILE;
        const bool inside = first + i < extent && k0 + k < depth;
        tile[k * PITCH + i] = inside ? operand[(first + i) * stride + (k0 + k) * stride_k] : 0.0f;
    }
}

// out (m, n) = sum over k of a[i, k] b[j, k], with a and b addressed by their two strides.
KERNEL(matmul_f32, THREADS, float* out, const float* a, const float* b, const float* bias,
       int accumulate, int m, int n, int k, long long a_stride, long long a_stride_k,
       long long b_stride, long long b_stride_k) {
    DYNAMIC_SHARED(bytes);
    float* const tile_a = (float*)bytes;
    float* const tile_b = tile_a + DEPTH * PITCH;
    const int tiles_n = (n + TILE - 1) / TILE;
    const int first_m = (int)blockIdx.x / tiles_n * TILE;
    const int first_n = (int)blockIdx.x % tiles_n * TILE;
    const int row = (int)threadIdx.x / 16, column = (int)threadIdx.x % 16;
    float sums[2][2] = {};
    for (int k0 = 0; k0 < k; k0 += DEPTH) {
        load(tile_a, a, first_m, m, k0, k, a_stride, a_stride_k);
        load(tile_b, b, first_n, n, k0, k, b_stride, b_stride_k);
        __syncthreads();  // both tiles are there
#pragma unroll
        for (int kk = 0; kk < DEPTH; kk++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    sums[i][j] = __fmaf_rn(tile_a[kk * PITCH + row + 16 * i],
                                           tile_b[kk * PITCH + column + 16 * j], sums[i][j]);
                }
            }
        }
        __syncthreads();  // all threads are done with them
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int r = first_m + row + 16 * i, c = first_n + column + 16 * j;
            if (r >= m || c >= n) continue;
            float* to = out + (size_t)r * (size_t)n + c;
            float value = sums[i][j];
            if (bias) value += bias[c];
            if (accumulate) value += *to;
            *to = value;
        }
    }
}

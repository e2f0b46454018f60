// Conformance: wgmma in every operand form and a few widths. D (64 x N) = A (64 x 64) B (64 x N),
// one warpgroup, operands brought by TMA with the 128-byte swizzle.
#include "../ptx/fence.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mbarrier.cuh"
#include "../ptx/memory.cuh"
#include "../ptx/tma.cuh"
#include "../ptx/wgmma.cuh"

// A is stored [m][k] (K-major) or [k][m]; B [n][k] or [k][n], in boxes of 64 elements (128 bytes).
template <int N, ptx::Major A, ptx::Major B, bool A_IN_REGISTERS>
DEVICE void multiply(const TensorMap* a, const TensorMap* b, float* out, unsigned char* shared) {
    u32 at_a = ptx::shared_address(shared), at_b = at_a + 64 * 128, barrier = at_b + 256 * 128;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        // MN-major B is loaded in boxes of 64 columns by 64 k.
        int boxes = B == ptx::MN_MAJOR ? N / 64 : 1;
        u32 bytes_b = B == ptx::MN_MAJOR ? 8192 * boxes : N * 128;
        ptx::mbarrier_arrive_expect_tx(barrier, 8192 + bytes_b);
        ptx::tma_load(at_a, a, barrier, 0, 0);
        for (int i = 0; i < boxes; i++) ptx::tma_load(at_b + i * 8192, b, barrier, i * 64, 0);
    }
    ptx::mbarrier_wait(barrier, 0);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 fragments[4][4] = {};
    if (A_IN_REGISTERS)
        for (int k = 0; k < 4; k++)
            ptx::ldmatrix_x4(fragments[k], ptx::swizzle_128b(at_a + (warp * 16 + lane % 16) * 128 +
                                                             (k * 2 + lane / 16) * 16));
    float d[N / 2];
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) {
        u64 desc_b = B == ptx::MN_MAJOR
                         ? ptx::matrix_descriptor(at_b + k * 2048, 8192, 1024, ptx::SWIZZLE_128B)
                         : ptx::matrix_descriptor(at_b + k * 32, 16, 1024, ptx::SWIZZLE_128B);
        if constexpr (A_IN_REGISTERS) {
            ptx::wgmma<B>(d, fragments[k], desc_b, k != 0);
        } else {
            u64 desc_a =
                A == ptx::MN_MAJOR
                    ? ptx::matrix_descriptor(at_a + k * 2048, 8192, 1024, ptx::SWIZZLE_128B)
                    : ptx::matrix_descriptor(at_a + k * 32, 16, 1024, ptx::SWIZZLE_128B);
            ptx::wgmma<A, B>(d, desc_a, desc_b, k != 0);
        }
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        out[(warp * 16 + g + i / 2 % 2 * 8) * N + i / 4 * 8 + t * 2 + i % 2] = d[i];
}

#define WGMMA_KERNEL(name, n, a_major, b_major, in_registers)                                   \
    KERNEL(name, 128, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, \
           float* out) {                                                                        \
        DYNAMIC_SHARED(shared);                                                                 \
        multiply<n, ptx::a_major, ptx::b_major, in_registers>(&a, &b, out, shared);             \
    }
WGMMA_KERNEL(conform_wgmma_nn, 128, K_MAJOR, K_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_nt, 128, K_MAJOR, MN_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_tn, 128, MN_MAJOR, K_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_tt, 128, MN_MAJOR, MN_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_rn, 128, K_MAJOR, K_MAJOR, true)
WGMMA_KERNEL(conform_wgmma_rt, 128, K_MAJOR, MN_MAJOR, true)
WGMMA_KERNEL(conform_wgmma_64, 64, K_MAJOR, K_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_80, 80, K_MAJOR, K_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_96, 96, K_MAJOR, K_MAJOR, true)
WGMMA_KERNEL(conform_wgmma_112, 112, K_MAJOR, K_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_160, 160, K_MAJOR, K_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_176, 176, K_MAJOR, K_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_192, 192, K_MAJOR, MN_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_224, 224, K_MAJOR, K_MAJOR, false)
WGMMA_KERNEL(conform_wgmma_256, 256, K_MAJOR, MN_MAJOR, false)

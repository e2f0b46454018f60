// Conformance: ldmatrix and mma. Each kernel is one warp.
#include "../ptx/ldmatrix.cuh"
#include "../ptx/memory.cuh"
#include "../ptx/mma.cuh"

// Copies 2 KiB (32 rows of 64 bytes) to shared memory.
DEVICE void fill_shared(unsigned char* shared, const uint4* source) {
    for (int i = 0; i < 4; i++)
        ((uint4*)shared)[i * 32 + threadIdx.x] = source[i * 32 + threadIdx.x];
    __syncwarp();
}

// Matrix m, row r lies at row m * 8 + r of the shared tile, in its first 16 bytes.
KERNEL(conform_ldmatrix, 32, u32* out, const uint4* in) {
    DYNAMIC_SHARED(shared);
    fill_shared(shared, in);
    u32 lane = threadIdx.x, row = ptx::shared_address(shared) + lane * 64;
    u32 x1[1], x2[2], x2t[2], x4[4], x4t[4];
    ptx::ldmatrix_x1(x1, row);
    ptx::ldmatrix_x2(x2, row);
    ptx::ldmatrix_x2_trans(x2t, row);
    ptx::ldmatrix_x4(x4, row);
    ptx::ldmatrix_x4_trans(x4t, row);
    out[lane] = x1[0];
    for (int i = 0; i < 2; i++) out[(1 + i) * 32 + lane] = x2[i];
    for (int i = 0; i < 2; i++) out[(3 + i) * 32 + lane] = x2t[i];
    for (int i = 0; i < 4; i++) out[(5 + i) * 32 + lane] = x4[i];
    for (int i = 0; i < 4; i++) out[(9 + i) * 32 + lane] = x4t[i];
}

// D (16x8) = C + A (16x16) B (16x8), operands row major in global memory.
KERNEL(conform_mma, 32, float* d, const u16* a, const u16* b, const float* c) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4 * 2;
    auto pair = [](u16 low, u16 high) { return (u32)low | (u32)high << 16; };
    u32 fa[4], fb[2];
    for (int i = 0; i < 4; i++) {
        const u16* at = a + (g + i % 2 * 8) * 16 + t + i / 2 * 8;
        fa[i] = pair(at[0], at[1]);
    }
    for (int i = 0; i < 2; i++) {
        const u16* at = b + (t + i * 8) * 8 + g;
        fb[i] = pair(at[0], at[8]);
    }
    float acc[4];
    for (int i = 0; i < 4; i++) acc[i] = c[(g + i / 2 * 8) * 8 + t + i % 2];
    ptx::mma_m16n8k16(acc, fa, fb);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + t + i % 2] = acc[i];
}

// ldmatrix, stmatrix and mma. Fragment layouts as in kernels/ptx/mma.cuh; they were compared with
// CuTe's layout code (very high confidence).
#include <math.h>
#include <string.h>

#include <algorithm>

#include "engine.h"

namespace emu {

namespace {

struct MatrixOperands {
    u32* r;
    u32 address;
};

typedef u16 Matrix[8][8];

// Rows of one 8x8 matrix that fall into the same 16-byte bank group wait for each other.
void count_conflicts(void** lanes, int matrices) {
    for (int m = 0; m < matrices; m++) {
        u8 rows[8] = {}, worst = 0;
        for (int i = 0; i < 8; i++) {
            u8 n = ++rows[((MatrixOperands*)lanes[m * 8 + i])->address >> 4 & 7];
            worst = std::max(worst, n);
        }
        launch->matrix_phases++;
        launch->bank_conflicts += worst - 1u;
    }
}

// The row that lane 8 m + i addresses: checked, and its place in memory; null if illegal.
u8* row_of(Warp& warp, void** lanes, int lane, Access access, Pc pc, const char* what) {
    Block* block;
    u32 offset, address = ((MatrixOperands*)lanes[lane])->address;
    if (!resolve_shared(address, 16, 16, pc, what, &block, &offset)) return nullptr;
    Thread& thread = warp.block->threads[warp.id * WARP + lane];
    shared_access(thread, *block, offset, 16, access, pc);
    return block->shared + offset;
}

float bf16_to_float(u32 bits) {
    bits <<= 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

}  // namespace

void ldmatrix(uint32_t* r, int matrices, bool transposed, uint32_t shared, int site) {
    MatrixOperands own{r, shared};
    Pc pc = CALLER;
    u64 signature = (u64)site << 8 | (u64)matrices << 1 | transposed;
    meet(~0u, WarpOp::LoadMatrix, signature, &own, pc, [&](Warp& warp, void** lanes) {
        count_conflicts(lanes, matrices);
        for (int m = 0; m < matrices; m++) {
            Matrix matrix;
            for (int i = 0; i < 8; i++) {
                u8* row = row_of(warp, lanes, m * 8 + i, Access::Read, pc, "ldmatrix");
                if (row) memcpy(matrix[i], row, 16);
                else memset(matrix[i], 0xff, 16);
            }
            for (int lane = 0; lane < WARP; lane++) {
                int g = lane / 4, t = lane % 4 * 2;
                u32 low = transposed ? matrix[t][g] : matrix[g][t];
                u32 high = transposed ? matrix[t + 1][g] : matrix[g][t + 1];
                ((MatrixOperands*)lanes[lane])->r[m] = low | high << 16;
            }
        }
    });
}

void stmatrix(const uint32_t* r, int matrices, bool transposed, uint32_t shared, int site) {
    MatrixOperands own{const_cast<u32*>(r), shared};
    Pc pc = CALLER;
    u64 signature = (u64)site << 8 | (u64)matrices << 1 | transposed;
    meet(~0u, WarpOp::StoreMatrix, signature, &own, pc, [&](Warp& warp, void** lanes) {
        count_conflicts(lanes, matrices);
        for (int m = 0; m < matrices; m++) {
            Matrix matrix;
            for (int lane = 0; lane < WARP; lane++) {
                int g = lane / 4, t = lane % 4 * 2;
                u32 value = ((MatrixOperands*)lanes[lane])->r[m];
                (transposed ? matrix[t][g] : matrix[g][t]) = (u16)value;
                (transposed ? matrix[t + 1][g] : matrix[g][t + 1]) = (u16)(value >> 16);
            }
            for (int i = 0; i < 8; i++) {
                u8* row = row_of(warp, lanes, m * 8 + i, Access::Write, pc, "stmatrix");
                if (row) memcpy(row, matrix[i], 16);
            }
        }
    });
}

void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, int site) {
    struct Operands {
        float* d;
        const u32 *a, *b;
    } own{d, a, b};
    meet(~0u, WarpOp::Mma, (u64)site, &own, CALLER, [&](Warp&, void** lanes) {
        float am[16][16], bm[16][8], product[16][8] = {};
        for (int lane = 0; lane < WARP; lane++) {
            auto* o = (Operands*)lanes[lane];
            int g = lane / 4, t = lane % 4 * 2;
            for (int i = 0; i < 4; i++) {
                float* at = &am[g + (i & 1) * 8][t + (i >> 1) * 8];
                at[0] = bf16_to_float(o->a[i] & 0xffff);
                at[1] = bf16_to_float(o->a[i] >> 16);
            }
            for (int i = 0; i < 2; i++) {
                bm[t + i * 8][g] = bf16_to_float(o->b[i] & 0xffff);
                bm[t + i * 8 + 1][g] = bf16_to_float(o->b[i] >> 16);
            }
            for (int i = 0; i < 4; i++) product[g + (i >> 1) * 8][t + (i & 1)] = o->d[i];
        }
        multiply_add(&am[0][0], &bm[0][0], &product[0][0], 8, 8);
        for (int lane = 0; lane < WARP; lane++) {
            int g = lane / 4, t = lane % 4 * 2;
            for (int i = 0; i < 4; i++)
                ((Operands*)lanes[lane])->d[i] = product[g + (i >> 1) * 8][t + (i & 1)];
        }
    });
}

// Tensor cores align the products of a step to the largest, cut off what does not fit, and do not
// round to nearest. By default sums are rounded; `truncate_sums` rounds the result of each step
// towards zero instead: hardware lies near one of the two.
void multiply_add(const float* a, const float* b, float* c, int n, int b_stride) {
    bool truncate = launch->config.options.truncate_sums;
    for (int m = 0; m < 16; m++) {
        if (truncate) {
            for (int j = 0; j < n; j++) {
                double sum = c[m * b_stride + j];
                for (int k = 0; k < 16; k++) sum += (double)a[m * 16 + k] * b[k * b_stride + j];
                float nearest = (float)sum;
                if (fabs((double)nearest) > fabs(sum)) nearest = nextafterf(nearest, 0.0f);
                c[m * b_stride + j] = nearest;
            }
            continue;
        }
        for (int k = 0; k < 16; k++) {
            float factor = a[m * 16 + k];
            for (int j = 0; j < n; j++) c[m * b_stride + j] += factor * b[k * b_stride + j];
        }
    }
}

}  // namespace emu

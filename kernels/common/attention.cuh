// Parts that the attention kernels share: tiles in shared memory, fragments, products of tiles.
//
// A tile is rows of D bf16 elements with 8 elements of padding behind each row. The distance of
// rows, an odd number of 16-byte units, makes every ldmatrix and every access below free of bank
// conflicts for any D that is a multiple of 16, without a swizzle.
//
// A block has WARPS warps; warp w owns rows (w * M_TILES .. ) * 16 of the tile of "left" operands
// (and the accumulators of these rows), all warps share the tile of "right" operands.
#pragma once
#include "../ptx/bf16.cuh"
#include "../ptx/cp_async.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/math.cuh"
#include "../ptx/memory.cuh"
#include "../ptx/mma.cuh"
#include "../ptx/warp.cuh"

namespace attention {

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;
constexpr int PAD = 8;

// Bytes from one row of a tile to the next.
template <int D>
constexpr u32 ROW_BYTES = (D + PAD) * 2;

// Starts copying ROWS rows of D elements; rows from `valid` on become zeros and are not read.
template <int ROWS, int D, int THREADS>
DEVICE void load_tile(u32 tile, const bf16* source, long long stride, int valid) {
    constexpr int VECTORS = D / 8;
#pragma unroll 1
    for (int i = threadIdx.x; i < ROWS * VECTORS; i += THREADS) {
        int row = i / VECTORS, column = i % VECTORS * 8;
        bool inside = row < valid;
        const bf16* from = source + (inside ? row * stride : 0) + column;
        ptx::cp_async_16(tile + row * ROW_BYTES<D> + column * 2, from, inside ? 16 : 0);
    }
}

// This lane's address in ldmatrix of a 16x16 matrix whose rows are rows of the tile: the A
// fragment, or (transposed) the B fragment of two products whose k index is the row.
template <int D>
DEVICE u32 lane_by_rows() {
    u32 lane = ptx::lane_id();
    return lane % 16 * ROW_BYTES<D> + lane / 16 * 16;
}

// The same for the B fragment of two products whose n index is the row.
template <int D>
DEVICE u32 lane_by_columns() {
    u32 lane = ptx::lane_id();
    return (lane / 16 * 8 + lane % 8) * ROW_BYTES<D> + lane / 8 % 2 * 16;
}

// Two neighbouring 16x8 products with one A fragment.
DEVICE void mma_pair(float (&d0)[4], float (&d1)[4], const u32 (&a)[4], const u32 (&b)[4]) {
    const u32 b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    ptx::mma_m16n8k16(d0, a, b0);
    ptx::mma_m16n8k16(d1, a, b1);
}

// The A fragments of a warp's rows, read again for every product (they may be too many to keep).
template <int M_TILES, int D>
struct SharedRows {
    u32 address;

    // `rows` is the address of the warp's first row.
    DEVICE explicit SharedRows(u32 rows) : address(rows + lane_by_rows<D>()) {}
    DEVICE void load(u32 (&a)[M_TILES][4], int k) const {
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            ptx::ldmatrix_x4(a[m], address + m * 16 * ROW_BYTES<D> + k * 32);
        }
    }
};

// s (16 M_TILES x N) = left (16 M_TILES x D) right^T, `right` the address of N rows of D.
template <int M_TILES, int D, int N>
DEVICE void multiply_transposed(float (&s)[M_TILES][N / 8][4], const SharedRows<M_TILES, D>& left,
                                u32 right) {
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) s[m][n][e] = 0;
        }
    }
    u32 address = right + lane_by_columns<D>();
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        u32 a[M_TILES][4];
        left.load(a, k);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            u32 b[4];
            ptx::ldmatrix_x4(b, address + n * 16 * ROW_BYTES<D> + k * 32);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) mma_pair(s[m][2 * n], s[m][2 * n + 1], a[m], b);
        }
    }
}

// sums (16 M_TILES x D) += p right, with p (16 M_TILES x N) rounded to bf16: the accumulators of
// one product are the A fragment of the next.
template <int M_TILES, int D, int N>
DEVICE void accumulate(float (&sums)[M_TILES][D / 8][4], const float (&p)[M_TILES][N / 8][4],
                       u32 right) {
    u32 address = right + lane_by_rows<D>();
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        u32 a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float* pair = &p[m][2 * k + i / 2][i % 2 * 2];
                a[m][i] = ptx::pack_bf16x2(pair[0], pair[1]);
            }
        }
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            u32 b[4];
            ptx::ldmatrix_x4_trans(b, address + k * 16 * ROW_BYTES<D> + n * 32);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) mma_pair(sums[m][2 * n], sums[m][2 * n + 1], a[m], b);
        }
    }
}

template <int M_TILES, int D>
DEVICE void clear(float (&sums)[M_TILES][D / 8][4]) {
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) sums[m][n][e] = 0;
        }
    }
}

// Hides every key that comes after the query. Rows of s are queries and columns keys, or the other
// way round (KEYS_ARE_ROWS); both are counted from the document's first token.
template <bool KEYS_ARE_ROWS, int M_TILES, int N>
DEVICE void mask(float (&s)[M_TILES][N / 8][4], int first_row, int first_column) {
    int lane = ptx::lane_id();
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int row = first_row + m * 16 + e / 2 * 8 + lane / 4;
                int column = first_column + n * 8 + lane % 4 * 2 + e % 2;
                if (KEYS_ARE_ROWS ? row > column : column > row) s[m][n][e] = -INFINITY;
            }
        }
    }
}

// Sum and maximum over the four lanes that hold one row of an accumulator.
DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(ptx::FULL_WARP, x, 1);
    return x + __shfl_xor_sync(ptx::FULL_WARP, x, 2);
}

DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ptx::FULL_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(ptx::FULL_WARP, x, 2));
}

// Writes the first `valid` of a warp's rows, each times its factor, rounded to bf16. They pass
// through `staging`, the warp's own rows of a tile that it needs no more, so that each lane writes
// 16 bytes. factor[m][i] belongs to row 16 m + 8 i + lane / 4.
template <int M_TILES, int D>
DEVICE void store_rows(bf16* destination, long long stride, int valid, unsigned char* staging,
                       const float (&sums)[M_TILES][D / 8][4], const float (&factor)[M_TILES][2]) {
    constexpr int VECTORS = D / 8;
    int lane = ptx::lane_id();
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            unsigned char* row = staging + (m * 16 + i * 8 + lane / 4) * ROW_BYTES<D>;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                const float* pair = &sums[m][n][i * 2];
                *(u32*)(row + n * 16 + lane % 4 * 4) =
                    ptx::pack_bf16x2(pair[0] * factor[m][i], pair[1] * factor[m][i]);
            }
        }
    }
    __syncwarp();
    for (int i = lane; i < M_TILES * 16 * VECTORS; i += 32) {
        int row = i / VECTORS, vector = i % VECTORS;
        if (row < valid) {
            *(uint4*)(destination + row * stride + vector * 8) =
                *(const uint4*)(staging + row * ROW_BYTES<D> + vector * 16);
        }
    }
}

// The same with one factor for all rows.
template <int M_TILES, int D>
DEVICE void store_rows(bf16* destination, long long stride, int valid, unsigned char* staging,
                       const float (&sums)[M_TILES][D / 8][4], float factor) {
    float factors[M_TILES][2];
#pragma unroll
    for (int m = 0; m < M_TILES; m++) factors[m][0] = factors[m][1] = factor;
    store_rows<M_TILES, D>(destination, stride, valid, staging, sums, factors);
}

// The log-sum-exp of a row in the exponent of 2; infinite for a row without any key, so that its
// probabilities are 0 and not infinite.
DEVICE float log2_sum(float lse) { return lse == -INFINITY ? INFINITY : lse * LOG2_E; }

}  // namespace attention

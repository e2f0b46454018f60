// Flash attention, forward: causal within each document, grouped query heads, bf16.
//
// A block owns a tile of queries of one document and one query head, and visits the keys 0 ..= last
// query in tiles of N. The copy of V runs during the product with K, that of the next K during the
// softmax and the product with V, so one buffer of each is enough. Contract, layout and reference:
// src/ops/attention. Source: Dao, "FlashAttention-2" (2023), algorithm 1.
#include "common/attention.cuh"
#include "common/documents.cuh"

using namespace attention;

namespace {

constexpr int WARPS = 4, THREADS = WARPS * 32;

// Running softmax of a warp's rows; [m][i] is row 16 m + 8 i + lane / 4.
template <int M_TILES>
struct RowState {
    // Largest score so far, before the factor.
    float maximum[M_TILES][2];
    // Sum of exponentials so far, this lane's columns only.
    float total[M_TILES][2];
};

// Turns scores into probabilities relative to the new maximum, and rescales what was summed.
template <int M_TILES, int D, int N>
DEVICE void softmax(float (&s)[M_TILES][N / 8][4], float (&sums)[M_TILES][D / 8][4],
                    RowState<M_TILES>& state, float scale) {
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float top = state.maximum[m][i];
#pragma unroll
            for (int n = 0; n < N / 8; n++) {
                top = fmaxf(top, fmaxf(s[m][n][2 * i], s[m][n][2 * i + 1]));
            }
            top = quad_max(top);
            // Without a key so far every exponential is 0, not 2^(inf - inf).
            float base = top == -INFINITY ? 0 : top * scale;
            float shrink = ptx::exp2_approx(state.maximum[m][i] * scale - base);
            state.maximum[m][i] = top;
            float total = state.total[m][i] * shrink;
#pragma unroll
            for (int n = 0; n < N / 8; n++) {
#pragma unroll
                for (int e = 2 * i; e < 2 * i + 2; e++) {
                    s[m][n][e] = ptx::exp2_approx(fmaf(s[m][n][e], scale, -base));
                    total += s[m][n][e];
                }
            }
            state.total[m][i] = total;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                sums[m][n][2 * i] *= shrink;
                sums[m][n][2 * i + 1] *= shrink;
            }
        }
    }
}

template <int D, int M_TILES, int N>
DEVICE void forward(bf16* out, float* lse, const bf16* qkv, const int* cu_seqlens, float scale,
                    int num_tokens, int num_documents, int num_heads, int num_kv_heads) {
    constexpr int M = WARPS * M_TILES * 16;
    DYNAMIC_SHARED(shared);
    u32 q_tile = ptx::shared_address(shared);
    u32 k_tile = q_tile + M * ROW_BYTES<D>, v_tile = k_tile + N * ROW_BYTES<D>;

    // The last tiles see the most keys: they start first.
    int head = blockIdx.x % num_heads;
    int slot = (gridDim.x - 1 - blockIdx.x) / num_heads;
    DocumentTile tile;
    if (!find_tile<M>(tile, cu_seqlens, num_documents, num_tokens, slot)) return;
    int kv_head = head / (num_heads / num_kv_heads);
    long long width = (long long)(num_heads + 2 * num_kv_heads) * D;
    const bf16* q = qkv + (tile.begin + tile.first) * width + head * D;
    const bf16* k = qkv + tile.begin * width + (num_heads + kv_head) * D;
    const bf16* v = k + num_kv_heads * D;

    int warp_rows = threadIdx.x / 32 * M_TILES * 16;
    int first_row = tile.first + warp_rows;
    // Keys that some query of the tile, or of this warp, sees.
    int num_keys = min(tile.first + M, tile.length());
    int warp_keys = first_row < tile.length() ? first_row + M_TILES * 16 : 0;

    load_tile<M, D, THREADS>(q_tile, q, width, tile.length() - tile.first);
    load_tile<N, D, THREADS>(k_tile, k, width, tile.length());
    ptx::cp_async_commit();

    SharedRows<M_TILES, D> queries(q_tile + warp_rows * ROW_BYTES<D>);
    float sums[M_TILES][D / 8][4];
    clear<M_TILES, D>(sums);
    RowState<M_TILES> state;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
        state.maximum[m][0] = state.maximum[m][1] = -INFINITY;
        state.total[m][0] = state.total[m][1] = 0;
    }

    for (int first_key = 0; first_key < num_keys; first_key += N) {
        ptx::cp_async_wait<0>();
        __syncthreads();  // K is there, and nobody reads the last V any more
        load_tile<N, D, THREADS>(v_tile, v + first_key * width, width, tile.length() - first_key);
        ptx::cp_async_commit();
        bool seen = first_key < warp_keys;
        float s[M_TILES][N / 8][4];
        if (seen) multiply_transposed<M_TILES, D, N>(s, queries, k_tile);
        ptx::cp_async_wait<0>();
        __syncthreads();  // V is there, and nobody reads K any more
        int next = first_key + N;
        if (next < num_keys) {
            load_tile<N, D, THREADS>(k_tile, k + next * width, width, tile.length() - next);
            ptx::cp_async_commit();
        }
        if (seen) {
            if (next - 1 > first_row) mask<false, M_TILES, N>(s, first_row, first_key);
            softmax<M_TILES, D, N>(s, sums, state, scale);
            accumulate<M_TILES, D, N>(sums, s, v_tile);
        }
    }

    float inverse[M_TILES][2];
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float total = quad_sum(state.total[m][i]);
            inverse[m][i] = total == 0 ? 0 : 1 / total;
            int row = first_row + m * 16 + i * 8 + ptx::lane_id() / 4;
            if (ptx::lane_id() % 4 == 0 && row < tile.length()) {
                float log2_total = state.maximum[m][i] * scale + ptx::log2_approx(total);
                lse[(long long)(tile.begin + row) * num_heads + head] =
                    total == 0 ? -INFINITY : log2_total * LN_2;
            }
        }
    }
    long long out_width = (long long)num_heads * D;
    store_rows<M_TILES, D>(out + (tile.begin + first_row) * out_width + head * D, out_width,
                           tile.length() - first_row, shared + warp_rows * ROW_BYTES<D>, sums,
                           inverse);
}

}  // namespace

// `scale` is the factor of the scores times log2(e). Grid: (T / M + N) * H blocks of 128 threads;
// shared memory: (M + 2 N) * (D + 8) * 2 bytes; M = 64 M_TILES.
#define FORWARD(D, M_TILES, N)                                                                   \
    KERNEL(attention_forward_bf16_d##D, THREADS, bf16* out, float* lse, const bf16* qkv,         \
           const int* cu_seqlens, float scale, int num_tokens, int num_documents, int num_heads, \
           int num_kv_heads) {                                                                   \
        forward<D, M_TILES, N>(out, lse, qkv, cu_seqlens, scale, num_tokens, num_documents,      \
                               num_heads, num_kv_heads);                                         \
    }

FORWARD(32, 2, 64)
FORWARD(64, 2, 64)
FORWARD(80, 2, 64)
FORWARD(96, 2, 64)
FORWARD(128, 2, 48)
FORWARD(256, 1, 32)

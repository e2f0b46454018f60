// Flash attention, backward, bf16: the same bits in every run, without atomics.
//
// Three kernels: delta = sum over d of dout * out per row; dK and dV of a tile of keys, over all
// later queries of all query heads of its group; dQ of a tile of queries, over all earlier keys.
// Scores and dP are computed twice, and in return every gradient is the sum of one block in one
// order, with no intermediate in memory. P = 2^(S - lse), dS = P (dP - delta).
// Contract, layout and reference: src/ops/attention. Source: Dao, "FlashAttention-2" (2023).
#include "common/attention.cuh"
#include "common/documents.cuh"

using namespace attention;

namespace {

constexpr int WARPS = 4, THREADS = WARPS * 32;

// The packed operands, and where the heads of this block are in them.
struct Operands {
    const bf16 *dout, *qkv;
    const float *lse, *delta;
    int num_heads, num_kv_heads;

    DEVICE long long stat(int token, int head) const { return (long long)token * num_heads + head; }
    template <int D>
    DEVICE long long width() const {
        return (long long)(num_heads + 2 * num_kv_heads) * D;
    }
};

DEVICE float probability(float score, float scale, float log2_sum) {
    return ptx::exp2_approx(fmaf(score, scale, -log2_sum));
}

// ---- dK, dV
// ----------------------------------------------------------------------------------------

// One step of the pipeline: N queries of one head, their dout, and two numbers per query.
template <int D, int N>
struct QueryStage {
    static constexpr u32 BYTES = 2 * N * ROW_BYTES<D> + 2 * N * 4;
    u32 q, dout;
    unsigned char* stats;

    DEVICE QueryStage(unsigned char* memory)
        : q(ptx::shared_address(memory)),
          dout(q + N * ROW_BYTES<D>),
          stats(memory + 2 * N * ROW_BYTES<D>) {}
    DEVICE const float* lse() const { return (const float*)stats; }
    DEVICE const float* delta() const { return lse() + N; }

    // Queries from `first` of the document on; past its end all is 0, which adds nothing below.
    DEVICE void load(const Operands& in, const DocumentTile& tile, int head, int first) const {
        int token = tile.begin + first, valid = tile.length() - first;
        long long width = in.width<D>(), dout_width = (long long)in.num_heads * D;
        load_tile<N, D, THREADS>(q, in.qkv + token * width + head * D, width, valid);
        load_tile<N, D, THREADS>(dout, in.dout + token * dout_width + head * D, dout_width, valid);
        for (int i = threadIdx.x; i < 2 * N; i += THREADS) {
            int row = i % N;
            const float* from = i < N ? in.lse : in.delta;
            from += in.stat(token + (row < valid ? row : 0), head);
            ptx::cp_async_4(ptx::shared_address(stats + i * 4), from, row < valid ? 4 : 0);
        }
        ptx::cp_async_commit();
    }
};

// P and dS of one step in place of S and dP; without dP, P only.
template <int M_TILES, int N, bool DK, class Stage>
DEVICE void score_gradients(float (&p)[M_TILES][N / 8][4], float (&ds)[M_TILES][N / 8][4],
                            const Stage& stage, float scale) {
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int column = n * 8 + ptx::lane_id() % 4 * 2 + j;
            float sum = log2_sum(stage.lse()[column]);
            float delta = DK ? stage.delta()[column] : 0;
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
#pragma unroll
                for (int e = j; e < 4; e += 2) {
                    p[m][n][e] = probability(p[m][n][e], scale, sum);
                    if (DK) ds[m][n][e] = p[m][n][e] * (ds[m][n][e] - delta);
                }
            }
        }
    }
}

// Transposed products: rows are keys, columns are queries, so that P^T and dS^T are the left
// operands of the sums. Keys after the document's end never see a query (key > query).
template <int D, int M_TILES, int N, bool DK, bool DV>
DEVICE void backward_keys(bf16* dqkv, const Operands& in, const int* cu_seqlens, float scale_log2,
                          float scale, int num_tokens, int num_documents) {
    constexpr int M = WARPS * M_TILES * 16;
    DYNAMIC_SHARED(shared);
    unsigned char* stages = shared + 2 * M * ROW_BYTES<D>;
    u32 k_tile = ptx::shared_address(shared), v_tile = k_tile + M * ROW_BYTES<D>;

    // The first tiles are seen by the most queries: they start first.
    int kv_head = blockIdx.x % in.num_kv_heads, slot = blockIdx.x / in.num_kv_heads;
    DocumentTile tile;
    if (!find_tile<M>(tile, cu_seqlens, num_documents, num_tokens, slot)) return;
    int group = in.num_heads / in.num_kv_heads;
    long long width = in.width<D>();
    const bf16* k = in.qkv + (tile.begin + tile.first) * width + (in.num_heads + kv_head) * D;
    int num_keys = tile.length() - tile.first;
    load_tile<M, D, THREADS>(k_tile, k, width, num_keys);
    if (DK) load_tile<M, D, THREADS>(v_tile, k + in.num_kv_heads * D, width, num_keys);

    int warp_rows = threadIdx.x / 32 * M_TILES * 16;
    int first_key = tile.first + warp_rows;
    SharedRows<M_TILES, D> keys(k_tile + warp_rows * ROW_BYTES<D>);
    SharedRows<M_TILES, D> values(v_tile + warp_rows * ROW_BYTES<D>);
    float dk[M_TILES][D / 8][4], dv[M_TILES][D / 8][4];
    if (DK) clear<M_TILES, D>(dk);
    if (DV) clear<M_TILES, D>(dv);

    // The query tiles from the diagonal to the document's end, for one head after another.
    static_assert(M % N == 0, "a tile of keys begins with a tile of queries");
    int head = kv_head * group, end_head = head + group, first_query = tile.first, parity = 0;
    QueryStage<D, N>(stages).load(in, tile, head, first_query);
    while (head < end_head) {
        ptx::cp_async_wait<0>();
        __syncthreads();  // this stage is there, and nobody reads the other any more
        int next_head = head, next_query = first_query + N;
        if (next_query >= tile.length()) {
            next_head++;
            next_query = tile.first;
        }
        QueryStage<D, N> stage(stages + parity * QueryStage<D, N>::BYTES);
        parity ^= 1;
        if (next_head < end_head) {
            QueryStage<D, N> next(stages + parity * QueryStage<D, N>::BYTES);
            next.load(in, tile, next_head, next_query);
        }
        // Unless all these queries come before all keys of this warp.
        if (first_query + N > first_key) {
            float p[M_TILES][N / 8][4], ds[M_TILES][N / 8][4];
            multiply_transposed<M_TILES, D, N>(p, keys, stage.q);
            if (DK) multiply_transposed<M_TILES, D, N>(ds, values, stage.dout);
            if (first_key + M_TILES * 16 - 1 > first_query) {
                mask<true, M_TILES, N>(p, first_key, first_query);
            }
            score_gradients<M_TILES, N, DK>(p, ds, stage, scale_log2);
            if (DV) accumulate<M_TILES, D, N>(dv, p, stage.dout);
            if (DK) accumulate<M_TILES, D, N>(dk, ds, stage.q);
        }
        head = next_head;
        first_query = next_query;
    }

    int token = tile.begin + first_key, valid = tile.length() - first_key;
    bf16* row = dqkv + token * width + (in.num_heads + kv_head) * D;
    unsigned char* staging = shared + warp_rows * ROW_BYTES<D>;
    if (DK) store_rows<M_TILES, D>(row, width, valid, staging, dk, scale);
    row += in.num_kv_heads * D;
    if (DV) store_rows<M_TILES, D>(row, width, valid, staging + M * ROW_BYTES<D>, dv, 1.0f);
}

// ---- dQ
// --------------------------------------------------------------------------------------------

template <int D, int M_TILES, int N>
DEVICE void backward_queries(bf16* dqkv, const Operands& in, const int* cu_seqlens,
                             float scale_log2, float scale, int num_tokens, int num_documents) {
    constexpr int M = WARPS * M_TILES * 16;
    constexpr u32 TILE_BYTES = N * ROW_BYTES<D>;
    DYNAMIC_SHARED(shared);
    u32 q_tile = ptx::shared_address(shared), dout_tile = q_tile + M * ROW_BYTES<D>;
    u32 stages = dout_tile + M * ROW_BYTES<D>;

    int head = blockIdx.x % in.num_heads;
    int slot = (gridDim.x - 1 - blockIdx.x) / in.num_heads;
    DocumentTile tile;
    if (!find_tile<M>(tile, cu_seqlens, num_documents, num_tokens, slot)) return;
    int kv_head = head / (in.num_heads / in.num_kv_heads);
    long long width = in.width<D>(), dout_width = (long long)in.num_heads * D;
    int token = tile.begin + tile.first, valid = tile.length() - tile.first;
    load_tile<M, D, THREADS>(q_tile, in.qkv + token * width + head * D, width, valid);
    load_tile<M, D, THREADS>(dout_tile, in.dout + token * dout_width + head * D, dout_width, valid);

    const bf16* k = in.qkv + tile.begin * width + (in.num_heads + kv_head) * D;
    auto load = [&](int first_key) {
        u32 k_tile = stages + first_key / N % 2 * 2 * TILE_BYTES;
        const bf16* from = k + first_key * width;
        int valid = tile.length() - first_key;
        load_tile<N, D, THREADS>(k_tile, from, width, valid);
        load_tile<N, D, THREADS>(k_tile + TILE_BYTES, from + in.num_kv_heads * D, width, valid);
        ptx::cp_async_commit();
    };
    load(0);

    int warp_rows = threadIdx.x / 32 * M_TILES * 16, lane = ptx::lane_id();
    int first_row = tile.first + warp_rows;
    int num_keys = min(tile.first + M, tile.length());
    int warp_keys = first_row < tile.length() ? first_row + M_TILES * 16 : 0;
    SharedRows<M_TILES, D> queries(q_tile + warp_rows * ROW_BYTES<D>);
    SharedRows<M_TILES, D> douts(dout_tile + warp_rows * ROW_BYTES<D>);
    float sums[M_TILES][2], deltas[M_TILES][2];
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = first_row + m * 16 + i * 8 + lane / 4;
            bool inside = row < tile.length();
            sums[m][i] = inside ? log2_sum(in.lse[in.stat(tile.begin + row, head)]) : INFINITY;
            deltas[m][i] = inside ? in.delta[in.stat(tile.begin + row, head)] : 0;
        }
    }
    float dq[M_TILES][D / 8][4];
    clear<M_TILES, D>(dq);

    for (int first_key = 0; first_key < num_keys; first_key += N) {
        ptx::cp_async_wait<0>();
        __syncthreads();  // these keys are there, and nobody reads the ones before any more
        if (first_key + N < num_keys) load(first_key + N);
        if (first_key >= warp_keys) continue;
        u32 k_tile = stages + first_key / N % 2 * 2 * TILE_BYTES;
        float p[M_TILES][N / 8][4], ds[M_TILES][N / 8][4];
        multiply_transposed<M_TILES, D, N>(p, queries, k_tile);
        multiply_transposed<M_TILES, D, N>(ds, douts, k_tile + TILE_BYTES);
        if (first_key + N - 1 > first_row) mask<false, M_TILES, N>(p, first_row, first_key);
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
#pragma unroll
            for (int n = 0; n < N / 8; n++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float x = probability(p[m][n][e], scale_log2, sums[m][e / 2]);
                    ds[m][n][e] = x * (ds[m][n][e] - deltas[m][e / 2]);
                }
            }
        }
        accumulate<M_TILES, D, N>(dq, ds, k_tile);
    }
    store_rows<M_TILES, D>(dqkv + (tile.begin + first_row) * width + head * D, width,
                           tile.length() - first_row, shared + warp_rows * ROW_BYTES<D>, dq, scale);
}

}  // namespace

// delta[row] = sum over d of dout[row][d] * out[row][d], rows of one token and head; four lanes per
// row, in a fixed order. Any grid that has four threads per row; head_dim a multiple of 8.
KERNEL(attention_backward_delta_bf16, 256, float* delta, const bf16* dout, const bf16* out,
       long long num_rows, int head_dim) {
    long long row = (blockIdx.x * 256ll + threadIdx.x) / 4;
    float sum = 0;
    for (int i = threadIdx.x % 4 * 8; row < num_rows && i < head_dim; i += 32) {
        uint4 a = *(const uint4*)(dout + row * head_dim + i);
        uint4 b = *(const uint4*)(out + row * head_dim + i);
        const u32 x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            sum = fmaf(ptx::unpack_low(x[j]), ptx::unpack_low(y[j]), sum);
            sum = fmaf(ptx::unpack_high(x[j]), ptx::unpack_high(y[j]), sum);
        }
    }
    sum = quad_sum(sum);
    if (row < num_rows && threadIdx.x % 4 == 0) delta[row] = sum;
}

#define PARAMETERS                                                                               \
    bf16 *dqkv, const bf16 *dout, const bf16 *qkv, const float *lse, const float *delta,         \
        const int *cu_seqlens, float scale_log2, float scale, int num_tokens, int num_documents, \
        int num_heads, int num_kv_heads
#define OPERANDS \
    Operands { dout, qkv, lse, delta, num_heads, num_kv_heads }
#define ARGUMENTS dqkv, OPERANDS, cu_seqlens, scale_log2, scale, num_tokens, num_documents

// Grid: (T / M + N) * G blocks of 128 threads with M = 64 M_TILES, N documents. Shared memory: 2 M
// rows of (D + 8) * 2 bytes, and twice 2 N rows and 8 N bytes.
#define BACKWARD_KEYS(D, M_TILES, N)                                 \
    KERNEL(attention_backward_keys_bf16_d##D, THREADS, PARAMETERS) { \
        backward_keys<D, M_TILES, N, true, true>(ARGUMENTS);         \
    }

BACKWARD_KEYS(32, 2, 64)
BACKWARD_KEYS(64, 2, 32)
BACKWARD_KEYS(80, 1, 64)
BACKWARD_KEYS(96, 1, 64)
BACKWARD_KEYS(128, 1, 32)

// The accumulators of both do not fit the registers: one half of the grid for each.
KERNEL(attention_backward_keys_bf16_d256, THREADS, PARAMETERS) {
    if (blockIdx.y == 0) {
        backward_keys<256, 1, 32, true, false>(ARGUMENTS);
    } else {
        backward_keys<256, 1, 32, false, true>(ARGUMENTS);
    }
}

// Grid: (T / M + N) * H blocks. Shared memory: 2 M + 4 N rows.
#define BACKWARD_QUERIES(D, M_TILES, N)                                 \
    KERNEL(attention_backward_queries_bf16_d##D, THREADS, PARAMETERS) { \
        backward_queries<D, M_TILES, N>(ARGUMENTS);                     \
    }

BACKWARD_QUERIES(32, 2, 64)
BACKWARD_QUERIES(64, 2, 32)
BACKWARD_QUERIES(80, 2, 32)
BACKWARD_QUERIES(96, 2, 32)
BACKWARD_QUERIES(128, 1, 32)
BACKWARD_QUERIES(256, 1, 32)

// The key/value cache: writing to it, and attention of one new token per sequence, bf16.
//
// Decoding is limited by reading the cache. Its keys are split among blocks, a fixed number of
// splits per sequence whatever else is in the batch, and a second kernel adds their results in
// order. The query heads of a group are the rows of one product, so the cache is read once for all
// of them. Contract, layout and reference: src/ops/attention.
#include "common/attention.cuh"

using namespace attention;

namespace {

// Blocks that share the keys of a sequence, at the most.
constexpr int SPLITS = 16;

// Keys per split: whole tiles, and a function of the sequence's length only.
DEVICE int keys_per_split(int length, int tile) {
    int tiles = (length + tile - 1) / tile;
    return (tiles + SPLITS - 1) / SPLITS * tile;
}

// What a split leaves for the second kernel: for each row (a sequence's query head) and split, D
// sums, and a maximum and a total.
template <class F>
struct Partials {
    F *sums, *stats;
    int head_dim;

    DEVICE F* row_sums(long long row, int split) const {
        return sums + (row * SPLITS + split) * head_dim;
    }
    DEVICE F* row_stats(long long row, int split) const {
        return stats + (row * SPLITS + split) * 2;
    }
};

// A warp owns 16 keys of every tile of 16 WARPS, and 16 query heads; the warps' results are added
// in order at the end.
template <int D, int WARPS>
DEVICE void decode(const Partials<float>& partials, const bf16* qkv, const bf16* k_cache,
                   const bf16* v_cache, const int* lengths, float scale, int capacity,
                   int num_heads, int num_kv_heads) {
    constexpr int THREADS = WARPS * 32, TILE = WARPS * 16;
    constexpr u32 STAGE_BYTES = 2 * TILE * ROW_BYTES<D>;
    DYNAMIC_SHARED(shared);
    u32 q_tile = ptx::shared_address(shared), stages = q_tile + 16 * ROW_BYTES<D>;

    int group = num_heads / num_kv_heads, head_blocks = (group + 15) / 16;
    int kv_head = blockIdx.y / head_blocks, first_head = blockIdx.y % head_blocks * 16;
    int num_rows = min(group - first_head, 16), b = blockIdx.z, length = lengths[b];
    // A length out of range is left to the second kernel.
    if (length < 1 || length > capacity) return;
    int split_keys = keys_per_split(length, TILE);
    int begin = blockIdx.x * split_keys, end = min(begin + split_keys, length);
    if (begin >= end) return;

    long long width = (long long)(num_heads + 2 * num_kv_heads) * D, stride = num_kv_heads * D;
    int head = kv_head * group + first_head;
    load_tile<16, D, THREADS>(q_tile, qkv + b * width + head * D, D, num_rows);
    long long first = ((long long)b * capacity + begin) * stride + kv_head * D;
    auto load = [&](int key) {
        u32 stage = stages + (key - begin) / TILE % 2 * STAGE_BYTES;
        long long from = first + (key - begin) * stride;
        load_tile<TILE, D, THREADS>(stage, k_cache + from, stride, end - key);
        load_tile<TILE, D, THREADS>(stage + STAGE_BYTES / 2, v_cache + from, stride, end - key);
        ptx::cp_async_commit();
    };
    load(begin);

    int warp = threadIdx.x / 32, lane = ptx::lane_id();
    SharedRows<1, D> queries(q_tile);
    float sums[1][D / 8][4];
    clear<1, D>(sums);
    float maximum[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    for (int key = begin; key < end; key += TILE) {
        ptx::cp_async_wait<0>();
        __syncthreads();  // these keys are there, and nobody reads the ones before any more
        if (key + TILE < end) load(key + TILE);
        u32 k_tile = stages + (key - begin) / TILE % 2 * STAGE_BYTES + warp * 16 * ROW_BYTES<D>;
        float s[1][2][4];
        multiply_transposed<1, D, 16>(s, queries, k_tile);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float top = maximum[i];
#pragma unroll
            for (int n = 0; n < 2; n++) {
#pragma unroll
                for (int e = 2 * i; e < 2 * i + 2; e++) {
                    int column = key + warp * 16 + n * 8 + lane % 4 * 2 + e % 2;
                    if (column >= end) s[0][n][e] = -INFINITY;
                    top = fmaxf(top, s[0][n][e]);
                }
            }
            top = quad_max(top);
            // This warp may not have met a key yet.
            float base = top == -INFINITY ? 0 : top * scale;
            float shrink = ptx::exp2_approx(maximum[i] * scale - base);
            maximum[i] = top;
            total[i] *= shrink;
#pragma unroll
            for (int n = 0; n < 2; n++) {
#pragma unroll
                for (int e = 2 * i; e < 2 * i + 2; e++) {
                    s[0][n][e] = ptx::exp2_approx(fmaf(s[0][n][e], scale, -base));
                    total[i] += s[0][n][e];
                }
            }
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                sums[0][n][2 * i] *= shrink;
                sums[0][n][2 * i + 1] *= shrink;
            }
        }
        accumulate<1, D, 16>(sums, s, k_tile + STAGE_BYTES / 2);
    }

    // [warp][row][D] sums in the memory of the stages, then [warp][row] maxima and totals.
    float* warp_sums = (float*)(shared + 16 * ROW_BYTES<D>);
    float *warp_maxima = warp_sums + WARPS * 16 * D, *warp_totals = warp_maxima + WARPS * 16;
    __syncthreads();  // nobody reads keys any more
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = warp * 16 + i * 8 + lane / 4;
        float all = quad_sum(total[i]);
        if (lane % 4 == 0) {
            warp_maxima[row] = maximum[i];
            warp_totals[row] = all;
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            float2 pair = make_float2(sums[0][n][2 * i], sums[0][n][2 * i + 1]);
            *(float2*)(warp_sums + row * D + n * 8 + lane % 4 * 2) = pair;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < num_rows * D; i += THREADS) {
        int row = i / D, d = i % D;
        float top = -INFINITY, sum = 0, all = 0;
        for (int w = 0; w < WARPS; w++) top = fmaxf(top, warp_maxima[w * 16 + row]);
        float base = top == -INFINITY ? 0 : top * scale;
        for (int w = 0; w < WARPS; w++) {
            float factor = ptx::exp2_approx(warp_maxima[w * 16 + row] * scale - base);
            sum = fmaf(warp_sums[(w * 16 + row) * D + d], factor, sum);
            all = fmaf(warp_totals[w * 16 + row], factor, all);
        }
        long long output = (long long)b * num_heads + head + row;
        partials.row_sums(output, blockIdx.x)[d] = sum;
        if (d == 0) {
            partials.row_stats(output, blockIdx.x)[0] = top * scale;
            partials.row_stats(output, blockIdx.x)[1] = all;
        }
    }
}

// Copies the key and value columns of row t to row rows[t] of the caches, `V` at a time.
template <class V, class T>
DEVICE void store_kv(T* k_cache, T* v_cache, const T* qkv, const int* rows, int num_tokens,
                     int num_rows, int q_dim, int kv_dim) {
    constexpr int N = sizeof(V) / sizeof(T);
    int vectors = kv_dim / N;
    long long i = blockIdx.x * 256ll + threadIdx.x;
    if (i >= (long long)num_tokens * 2 * vectors) return;
    int t = (int)(i / (2 * vectors)), column = (int)(i % (2 * vectors));
    int row = rows[t];
    // Checked where the rows are made; here only that no other memory is hit.
    if (row < 0 || row >= num_rows) return;
    const V* from = (const V*)(qkv + (long long)t * (q_dim + 2 * kv_dim) + q_dim) + column;
    V* cache = (V*)((column < vectors ? k_cache : v_cache) + (long long)row * kv_dim);
    cache[column < vectors ? column : column - vectors] = *from;
}

}  // namespace

#define STORE_KV(dtype, T, suffix, V)                                                     \
    KERNEL(attention_store_kv_##dtype##suffix, 256, T* k_cache, T* v_cache, const T* qkv, \
           const int* rows, int num_tokens, int num_rows, int q_dim, int kv_dim) {        \
        store_kv<V>(k_cache, v_cache, qkv, rows, num_tokens, num_rows, q_dim, kv_dim);    \
    }

// A thread per vector of 16 bytes, when head sizes are multiples of it; or per element.
STORE_KV(bf16, bf16, _x8, uint4)
STORE_KV(bf16, bf16, , bf16)
STORE_KV(f32, float, , float)

// `scale` is the factor of the scores times log2(e). Grid: (16 splits, G * ceil(H / G / 16), B).
// Shared memory: 16 rows and twice 2 TILE rows of (D + 8) * 2 bytes, TILE = 16 WARPS. `sums` (B, H,
// 16, D), `stats` (B, H, 16, 2).
#define DECODE(D, WARPS)                                                                       \
    KERNEL(attention_decode_bf16_d##D, WARPS * 32, float* sums, float* stats, const bf16* qkv, \
           const bf16* k_cache, const bf16* v_cache, const int* lengths, float scale,          \
           int capacity, int num_heads, int num_kv_heads) {                                    \
        decode<D, WARPS>({sums, stats, D}, qkv, k_cache, v_cache, lengths, scale, capacity,    \
                         num_heads, num_kv_heads);                                             \
    }

DECODE(32, 4)
DECODE(64, 4)
DECODE(80, 4)
DECODE(96, 4)
DECODE(128, 4)
DECODE(256, 2)

// Adds the splits in order. A block per row (sequence, query head); `tile` as in the kernel above.
// A length outside 1 ..= capacity gives NaN.
KERNEL(attention_decode_combine_bf16, 128, bf16* out, const float* sums, const float* stats,
       const int* lengths, int tile, int capacity, int num_heads, int head_dim) {
    long long row = blockIdx.x;
    int length = lengths[row / num_heads];
    bool valid = length >= 1 && length <= capacity;
    int split_keys = valid ? keys_per_split(length, tile) : 1;
    int splits = valid ? (length + split_keys - 1) / split_keys : 0;
    Partials<const float> partials{sums, stats, head_dim};
    float top = -INFINITY, total = 0;
    for (int s = 0; s < splits; s++) top = fmaxf(top, partials.row_stats(row, s)[0]);
    float base = top == -INFINITY ? 0 : top;
    for (int s = 0; s < splits; s++) {
        const float* stat = partials.row_stats(row, s);
        total = fmaf(stat[1], ptx::exp2_approx(stat[0] - base), total);
    }
    float inverse = total == 0 ? 0 : 1 / total;
    for (int d = threadIdx.x; d < head_dim; d += 128) {
        float sum = 0;
        for (int s = 0; s < splits; s++) {
            float factor = ptx::exp2_approx(partials.row_stats(row, s)[0] - base);
            sum = fmaf(partials.row_sums(row, s)[d], factor, sum);
        }
        out[row * head_dim + d] = ptx::to_bf16(valid ? sum * inverse : NAN);
    }
}

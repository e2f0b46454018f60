// RMSNorm of every query and key head of packed rows; the contract is in src/ops/qk_norm/mod.rs.
//
// A group of lanes, the power of two that covers the eights of a head (at most a warp), takes a
// head; the groups of a block go through the heads of a row together. Heads wider than 256 are read
// again. Sums: within a lane by column, then a butterfly over the group.
//
// Backward: a block takes a chunk of consecutive rows; every group sums its part of both weight
// gradients in shared memory, the groups are added in order, and the chunks by
// reduce_add_partials_f32.
#include "common/reduce.cuh"
#include "common/vector.cuh"

namespace {

constexpr int THREADS = 128;

struct Shape {
    int num_q, num_k, d;  // query and key heads, head size
    DEVICE int heads() const { return num_q + num_k; }
    DEVICE int width() const { return (num_q + 2 * num_k) * d; }
};

// Which part of a row a thread works on.
struct Group {
    int lanes, lane, index, count;

    // All blocks and threads agree on `lanes`; the launcher computes it from d.
    DEVICE explicit Group(int lanes)
        : lanes(lanes),
          lane((int)threadIdx.x % lanes),
          index((int)threadIdx.x / lanes),
          count(THREADS / lanes) {}

    // Executed by whole warps, whether their groups have a head or not.
    DEVICE float sum(float x) const {
        for (int distance = lanes / 2; distance > 0; distance /= 2)
            x += __shfl_xor_sync(ptx::FULL_WARP, x, distance);
        return x;
    }
};

template <class T>
DEVICE void forward(T* out, float* rstd, const T* qkv, const T* q_weight, const T* k_weight,
                    float eps, Shape shape, int lanes) {
    Group group(lanes);
    int d = shape.d;
    long long row = (long long)blockIdx.x * shape.width();
    // Every warp makes the same number of rounds, because it shuffles in each.
    for (int first = 0; first < shape.heads(); first += group.count) {
        int head = first + group.index;
        bool active = head < shape.heads();
        const T* x = qkv + row + (long long)head * d;
        float sum = 0;
        if (active) {
            for (int i = group.lane * 8; i < d; i += lanes * 8) {
                Eight e = load_eight<Access::Constant>(x + i, d - i);
#pragma unroll
                for (int j = 0; j < 8; j++) sum = fmaf(e.x[j], e.x[j], sum);
            }
        }
        sum = group.sum(sum);
        if (!active) continue;
        float scale = 1.0f / sqrtf(sum / (float)d + eps);
        if (group.lane == 0) rstd[(long long)blockIdx.x * shape.heads() + head] = scale;
        const T* weight = head < shape.num_q ? q_weight : k_weight;
        for (int i = group.lane * 8; i < d; i += lanes * 8) {
            Eight e = load_eight<Access::Constant>(x + i, d - i);
            Eight w = load_eight<Access::Constant>(weight + i, d - i), y;
#pragma unroll
            for (int j = 0; j < 8; j++) y.x[j] = e.x[j] * scale * w.x[j];
            store_eight(out + row + (long long)head * d + i, y, d - i);
        }
    }
    // The values pass through.
    long long begin = row + (long long)shape.heads() * d;
    int num_values = shape.num_k * d;
    for (int i = (int)threadIdx.x * 8; i < num_values; i += THREADS * 8) {
        auto v = load_packed<Access::Streaming>(qkv + begin + i, num_values - i);
        store_packed(out + begin + i, v, num_values - i);
    }
}

// One head of one row, by one group. `sums`: the group's weight gradient, [8][eights of a head].
template <class T>
DEVICE void head_backward(T* dy, float* sums, const T* x, const T* weight, const Group& group,
                          float scale, int d, bool active) {
    float sum = 0;
    if (active) {
        for (int i = group.lane * 8; i < d; i += group.lanes * 8) {
            Eight e = load_eight<Access::Constant>(x + i, d - i);
            Eight g = load_eight<Access::Plain>(dy + i, d - i);
            Eight w = load_eight<Access::Constant>(weight + i, d - i);
#pragma unroll
            for (int j = 0; j < 8; j++) sum = fmaf(g.x[j] * w.x[j], e.x[j], sum);
        }
    }
    sum = group.sum(sum);
    if (!active) return;
    float mean = sum * scale / (float)d;
    int stride = (int)eights(d);
    for (int i = group.lane; i < stride; i += group.lanes) {
        int begin = i * 8, count = d - begin;
        Eight e = load_eight<Access::Constant>(x + begin, count);
        Eight g = load_eight<Access::Plain>(dy + begin, count);
        Eight w = load_eight<Access::Constant>(weight + begin, count), dx;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float normed = e.x[j] * scale;
            dx.x[j] = scale * (g.x[j] * w.x[j] - normed * mean);
            sums[j * stride + i] = fmaf(g.x[j], normed, sums[j * stride + i]);
        }
        store_eight(dy + begin, dx, count);
    }
}

template <class T>
DEVICE void backward(T* dqkv, float* dq_partials, float* dk_partials, const T* qkv,
                     const float* rstd, const T* q_weight, const T* k_weight, int num_rows,
                     Shape shape, int lanes, int chunk_rows) {
    DYNAMIC_SHARED(shared);
    Group group(lanes);
    int d = shape.d, stride = (int)eights(d), slab = 8 * stride;
    // [group][query or key][8][stride]
    float* sums = (float*)shared;
    for (int i = (int)threadIdx.x; i < group.count * 2 * slab; i += THREADS) sums[i] = 0;
    __syncthreads();
    int begin = (int)blockIdx.x * chunk_rows, end = min(begin + chunk_rows, num_rows);
    for (int r = begin; r < end; r++) {
        for (int first = 0; first < shape.heads(); first += group.count) {
            int head = first + group.index;
            bool active = head < shape.heads(), is_key = head >= shape.num_q;
            long long offset = (long long)r * shape.width() + (long long)head * d;
            float scale = active ? rstd[(long long)r * shape.heads() + head] : 0.0f;
            head_backward(dqkv + offset, sums + (group.index * 2 + is_key) * slab, qkv + offset,
                          is_key ? k_weight : q_weight, group, scale, d, active);
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < d; i += THREADS) {
        int place = i % 8 * stride + i / 8;
        float dq = 0, dk = 0;
        for (int g = 0; g < group.count; g++) {
            dq += sums[g * 2 * slab + place];
            dk += sums[(g * 2 + 1) * slab + place];
        }
        dq_partials[(long long)blockIdx.x * d + i] = dq;
        dk_partials[(long long)blockIdx.x * d + i] = dk;
    }
}

}  // namespace

#define QK_NORM(T)                                                                              \
    KERNEL(qk_norm_forward_##T, THREADS, T* out, float* rstd, const T* qkv, const T* q_weight,  \
           const T* k_weight, float eps, int num_q, int num_k, int d, int lanes) {              \
        forward(out, rstd, qkv, q_weight, k_weight, eps, Shape{num_q, num_k, d}, lanes);        \
    }                                                                                           \
    KERNEL(qk_norm_backward_##T, THREADS, T* dqkv, float* dq_partials, float* dk_partials,      \
           const T* qkv, const float* rstd, const T* q_weight, const T* k_weight, int num_rows, \
           int num_q, int num_k, int d, int lanes, int chunk_rows) {                            \
        backward(dqkv, dq_partials, dk_partials, qkv, rstd, q_weight, k_weight, num_rows,       \
                 Shape{num_q, num_k, d}, lanes, chunk_rows);                                    \
    }
using f32 = float;
QK_NORM(f32)
QK_NORM(bf16)

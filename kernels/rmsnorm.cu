// Root-mean-square normalisation of rows; the contract is in src/ops/rmsnorm/mod.rs.
//
// A block of 128 threads takes a row; a thread takes the eights threadIdx.x, + 128, ... of it,
// keeps the first CACHED of them packed in registers and reads the rest, of rows wider than 4096,
// again (they come from the cache). Sums: within a thread by column, then the block's fixed order.
//
// Backward: a block takes a chunk of consecutive rows and sums their part of the weight gradient in
// shared memory, where each thread owns its columns; the chunks are then added in order by
// reduce_add_partials_f32. The size of a chunk depends on the number of rows alone.
#include "common/reduce.cuh"
#include "common/vector.cuh"

namespace {

constexpr int THREADS = 128;
constexpr int CACHED = 4;
constexpr int WARPS = THREADS / 32;

// A row of x, or of residual + x; elements are rounded to T before anything is computed of them.
template <class T, bool RESIDUAL>
struct Row {
    T* sums;
    const T* residual;
    const T* x;
    int c;

    // The eight at column `begin`, read for the first time.
    DEVICE Packed<T> first(int begin) const {
        Packed<T> packed = load_packed<Access::Streaming>(x + begin, c - begin);
        if constexpr (RESIDUAL) {
            Eight sum = unpack(packed);
            Eight before = load_eight<Access::Streaming>(residual + begin, c - begin);
#pragma unroll
            for (int j = 0; j < 8; j++) sum.x[j] += before.x[j];
            packed = pack<T>(sum);
            store_packed(sums + begin, packed, c - begin);
        }
        return packed;
    }

    // The same eight later, by the same thread.
    DEVICE Packed<T> again(int begin) const {
        return load_packed<Access::Plain>(RESIDUAL ? sums + begin : x + begin, c - begin);
    }
};

DEVICE float sum_squares(const Eight& e, float sum) {
#pragma unroll
    for (int j = 0; j < 8; j++) sum = fmaf(e.x[j], e.x[j], sum);
    return sum;
}

template <class T>
DEVICE void write_normed(T* y, const Eight& x, const T* weight, float rstd, int count) {
    Eight w = load_eight<Access::Constant>(weight, count), out;
#pragma unroll
    for (int j = 0; j < 8; j++) out.x[j] = x.x[j] * rstd * w.x[j];
    store_eight(y, out, count);
}

template <class T, bool RESIDUAL>
DEVICE void forward(T* y, T* residual_out, float* rstd, const T* residual, const T* x,
                    const T* weight, float eps, int c) {
    DYNAMIC_SHARED(shared);
    long long offset = (long long)blockIdx.x * c;
    Row<T, RESIDUAL> row{residual_out + offset, residual + offset, x + offset, c};
    Packed<T> cache[CACHED];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < CACHED; i++) {
        int begin = ((int)threadIdx.x + i * THREADS) * 8;
        if (begin < c) {
            cache[i] = row.first(begin);
            sum = sum_squares(unpack(cache[i]), sum);
        }
    }
    for (int begin = ((int)threadIdx.x + CACHED * THREADS) * 8; begin < c; begin += THREADS * 8)
        sum = sum_squares(unpack(row.first(begin)), sum);
    sum = block_reduce<Add, THREADS>(sum, (float*)shared);
    float scale = 1.0f / sqrtf(sum / (float)c + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = scale;
#pragma unroll
    for (int i = 0; i < CACHED; i++) {
        int begin = ((int)threadIdx.x + i * THREADS) * 8;
        if (begin < c)
            write_normed(y + offset + begin, unpack(cache[i]), weight + begin, scale, c - begin);
    }
    for (int begin = ((int)threadIdx.x + CACHED * THREADS) * 8; begin < c; begin += THREADS * 8) {
        Eight e = unpack(row.again(begin));
        write_normed(y + offset + begin, e, weight + begin, scale, c - begin);
    }
}

// What a thread holds of one eight of columns while it works on a row.
template <class T>
struct Columns {
    Packed<T> dy, x;
};

template <class T>
DEVICE Columns<T> load_columns(const T* dy, const T* x, int count) {
    return {load_packed<Access::Streaming>(dy, count), load_packed<Access::Streaming>(x, count)};
}

template <class T>
DEVICE float project(const Columns<T>& columns, const T* weight, int count, float sum) {
    Eight dy = unpack(columns.dy), x = unpack(columns.x);
    Eight w = load_eight<Access::Constant>(weight, count);
#pragma unroll
    for (int j = 0; j < 8; j++) sum = fmaf(dy.x[j] * w.x[j], x.x[j], sum);
    return sum;
}

// `sums`: this thread's eight of the chunk's weight gradient, [8][lanes of all eights].
template <class T>
DEVICE void add_gradients(T* dx, float* sums, int stride, const Columns<T>& columns,
                          const T* weight, float rstd, float mean, int count) {
    Eight dy = unpack(columns.dy), x = unpack(columns.x);
    Eight w = load_eight<Access::Constant>(weight, count);
    Eight out = load_eight<Access::Plain>(dx, count);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float normed = x.x[j] * rstd;
        out.x[j] += rstd * (dy.x[j] * w.x[j] - normed * mean);
        sums[j * stride] = fmaf(dy.x[j], normed, sums[j * stride]);
    }
    store_eight(dx, out, count);
}

template <class T>
DEVICE void backward(T* dx, float* partials, const T* dy, const T* x, const T* weight,
                     const float* rstd, int num_rows, int c, int chunk_rows) {
    DYNAMIC_SHARED(shared);
    float* scratch = (float*)shared;
    // Element j of eight i at [j][i]: neighbouring threads use neighbouring banks.
    float* sums = scratch + WARPS;
    int stride = (int)eights(c);
    for (int i = (int)threadIdx.x; i < stride; i += THREADS)
#pragma unroll
        for (int j = 0; j < 8; j++) sums[j * stride + i] = 0;
    int first = (int)blockIdx.x * chunk_rows, end = min(first + chunk_rows, num_rows);
    for (int r = first; r < end; r++) {
        long long offset = (long long)r * c;
        Columns<T> cache[CACHED];
        float sum = 0;
#pragma unroll
        for (int i = 0; i < CACHED; i++) {
            int begin = ((int)threadIdx.x + i * THREADS) * 8;
            if (begin < c) {
                cache[i] = load_columns(dy + offset + begin, x + offset + begin, c - begin);
                sum = project(cache[i], weight + begin, c - begin, sum);
            }
        }
        for (int i = (int)threadIdx.x + CACHED * THREADS; i < stride; i += THREADS) {
            auto columns = load_columns(dy + offset + i * 8, x + offset + i * 8, c - i * 8);
            sum = project(columns, weight + i * 8, c - i * 8, sum);
        }
        sum = block_reduce<Add, THREADS>(sum, scratch);
        float scale = rstd[r], mean = sum * scale / (float)c;
#pragma unroll
        for (int i = 0; i < CACHED; i++) {
            int eight = (int)threadIdx.x + i * THREADS, begin = eight * 8;
            if (begin < c)
                add_gradients(dx + offset + begin, sums + eight, stride, cache[i], weight + begin,
                              scale, mean, c - begin);
        }
        for (int i = (int)threadIdx.x + CACHED * THREADS; i < stride; i += THREADS) {
            auto columns = load_columns(dy + offset + i * 8, x + offset + i * 8, c - i * 8);
            add_gradients(dx + offset + i * 8, sums + i, stride, columns, weight + i * 8, scale,
                          mean, c - i * 8);
        }
    }
    for (int i = (int)threadIdx.x; i < stride; i += THREADS) {
        Eight e;
#pragma unroll
        for (int j = 0; j < 8; j++) e.x[j] = sums[j * stride + i];
        store_eight(partials + (long long)blockIdx.x * c + i * 8, e, c - i * 8);
    }
}

}  // namespace

// Blocks per multiprocessor that the registers of backward must suffice for: without it ptxas gives
// a thread of bf16 100 of them, and too few loads are in flight.
#define RMSNORM(T, BACKWARD_BLOCKS)                                                              \
    KERNEL(rmsnorm_forward_##T, THREADS, T* y, float* rstd, const T* x, const T* weight,         \
           float eps, int c) {                                                                   \
        forward<T, false>(y, nullptr, rstd, nullptr, x, weight, eps, c);                         \
    }                                                                                            \
    KERNEL(rmsnorm_forward_residual_##T, THREADS, T* y, T* residual_out, float* rstd,            \
           const T* residual, const T* x, const T* weight, float eps, int c) {                   \
        forward<T, true>(y, residual_out, rstd, residual, x, weight, eps, c);                    \
    }                                                                                            \
    KERNEL_MIN_BLOCKS(rmsnorm_backward_##T, THREADS, BACKWARD_BLOCKS, T* dx, float* partials,    \
                      const T* dy, const T* x, const T* weight, const float* rstd, int num_rows, \
                      int c, int chunk_rows) {                                                   \
        backward<T>(dx, partials, dy, x, weight, rstd, num_rows, c, chunk_rows);                 \
    }
using f32 = float;
RMSNORM(f32, 3)
RMSNORM(bf16, 6)

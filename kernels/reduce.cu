// Reductions of a tensor to one f64, and column sums; the contract is in src/ops/reduce/mod.rs.
//
// A tensor is cut into parts, as many as blocks; the launcher chooses their number by the number of
// elements alone. Eight i of the tensor goes to thread i mod 256 of its part. Then one block adds
// the parts in order. Everything is f64: squares of f32 neither round nor overflow, so that the
// norm of large gradients is a number, and NaN or infinity means one is in the tensor.
//
// Columns: stage one adds chunks of rows, stage two, reduce_add_partials_f32, the chunks to what is
// there. It is also stage two of the weight gradients of rmsnorm and qk_norm.
#include "common/reduce.cuh"
#include "common/vector.cuh"

namespace {

constexpr int THREADS = 256;

struct Sum {
    using Combine = Add;
    DEVICE static double term(float x, float) { return (double)x; }
};
struct SumSquares {
    using Combine = Add;
    DEVICE static double term(float x, float) { return (double)x * (double)x; }
};
struct Dot {
    using Combine = Add;
    DEVICE static double term(float x, float y) { return (double)x * (double)y; }
};
struct MaxAbs {
    using Combine = MaxOrNan;
    DEVICE static double term(float x, float) { return (double)fabsf(x); }
};

// `y` is `x` unless the operation has two operands.
template <class Operation, class T>
DEVICE void reduce(double* partials, const T* x, const T* y, long long part_eights, long long n) {
    DYNAMIC_SHARED(shared);
    using Combine = typename Operation::Combine;
    long long begin = (long long)blockIdx.x * part_eights;
    long long end = min(begin + part_eights, eights(n));
    double total = 0;
    for (long long i = begin + threadIdx.x; i < end; i += THREADS) {
        Eight a = load_eight<Access::Streaming>(x + i * 8, n - i * 8), b = a;
        if (y != x) b = load_eight<Access::Streaming>(y + i * 8, n - i * 8);
#pragma unroll
        for (int j = 0; j < 8; j++) total = Combine::apply(total, Operation::term(a.x[j], b.x[j]));
    }
    total = block_reduce<Combine, THREADS>(total, (double*)shared);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// The partial results of all blocks: thread t takes t, t + 256, ...
template <class Combine>
DEVICE void finish(double* out, const double* partials, int num_partials) {
    DYNAMIC_SHARED(shared);
    double total = 0;
    for (int i = (int)threadIdx.x; i < num_partials; i += THREADS)
        total = Combine::apply(total, partials[i]);
    total = block_reduce<Combine, THREADS>(total, (double*)shared);
    if (threadIdx.x == 0) out[0] = total;
}

// ---- columns: a block is LANES eights of columns wide and ROWS rows high
// --------------------------

constexpr int LANES = 32, ROWS = THREADS / LANES;

// Adds the eights of the block's ROWS rows of threads, the first row first; for the threads of
// that first row.
DEVICE Eight add_rows(const Eight& mine, float* shared) {
    int lane = (int)threadIdx.x % LANES;
#pragma unroll
    for (int j = 0; j < 8; j++) shared[j * THREADS + (int)threadIdx.x] = mine.x[j];
    __syncthreads();
    Eight total = mine;
    if ((int)threadIdx.x < LANES) {
        for (int r = 1; r < ROWS; r++)
#pragma unroll
            for (int j = 0; j < 8; j++) total.x[j] += shared[j * THREADS + r * LANES + lane];
    }
    return total;
}

// partials(chunk, column) = the sum over the chunk's rows.
template <class T>
DEVICE void column_sums(float* partials, const T* x, int num_rows, int num_columns,
                        int chunk_rows) {
    DYNAMIC_SHARED(shared);
    int column = (int)(blockIdx.x * LANES + threadIdx.x % LANES) * 8;
    int first = (int)blockIdx.y * chunk_rows, end = min(first + chunk_rows, num_rows);
    Eight sum{};
    if (column < num_columns) {
        for (int r = first + (int)threadIdx.x / LANES; r < end; r += ROWS) {
            Eight e = load_eight<Access::Streaming>(x + (long long)r * num_columns + column,
                                                    num_columns - column);
#pragma unroll
            for (int j = 0; j < 8; j++) sum.x[j] += e.x[j];
        }
    }
    sum = add_rows(sum, (float*)shared);
    if ((int)threadIdx.x < LANES && column < num_columns)
        store_eight(partials + (long long)blockIdx.y * num_columns + column, sum,
                    num_columns - column);
}

DEVICE void add_partials(float* out, const float* partials, int num_partials, int num_columns) {
    DYNAMIC_SHARED(shared);
    int column = (int)(blockIdx.x * LANES + threadIdx.x % LANES) * 8;
    Eight sum{};
    if (column < num_columns) {
        for (int i = (int)threadIdx.x / LANES; i < num_partials; i += ROWS) {
            Eight e = load_eight<Access::Streaming>(partials + (long long)i * num_columns + column,
                                                    num_columns - column);
#pragma unroll
            for (int j = 0; j < 8; j++) sum.x[j] += e.x[j];
        }
    }
    sum = add_rows(sum, (float*)shared);
    if ((int)threadIdx.x < LANES && column < num_columns) {
        Eight before = load_eight<Access::Plain>(out + column, num_columns - column);
#pragma unroll
        for (int j = 0; j < 8; j++) sum.x[j] += before.x[j];
        store_eight(out + column, sum, num_columns - column);
    }
}

}  // namespace

#define REDUCE(name, Operation, T)                                                         \
    KERNEL(name, THREADS, double* partials, const T* x, const T* y, long long part_eights, \
           long long n) {                                                                  \
        reduce<Operation>(partials, x, y, part_eights, n);                                 \
    }
REDUCE(reduce_sum_f32, Sum, float)
REDUCE(reduce_sum_bf16, Sum, bf16)
REDUCE(reduce_sum_squares_f32, SumSquares, float)
REDUCE(reduce_sum_squares_bf16, SumSquares, bf16)
REDUCE(reduce_dot_f32, Dot, float)
REDUCE(reduce_dot_bf16, Dot, bf16)
REDUCE(reduce_max_abs_f32, MaxAbs, float)
REDUCE(reduce_max_abs_bf16, MaxAbs, bf16)

KERNEL(reduce_finish_sum, THREADS, double* out, const double* partials, int num_partials) {
    finish<Add>(out, partials, num_partials);
}
KERNEL(reduce_finish_max, THREADS, double* out, const double* partials, int num_partials) {
    finish<MaxOrNan>(out, partials, num_partials);
}

KERNEL(reduce_column_sums_f32, THREADS, float* partials, const float* x, int num_rows,
       int num_columns, int chunk_rows) {
    column_sums(partials, x, num_rows, num_columns, chunk_rows);
}
KERNEL(reduce_column_sums_bf16, THREADS, float* partials, const bf16* x, int num_rows,
       int num_columns, int chunk_rows) {
    column_sums(partials, x, num_rows, num_columns, chunk_rows);
}
KERNEL(reduce_add_partials_f32, THREADS, float* out, const float* partials, int num_partials,
       int num_columns) {
    add_partials(out, partials, num_partials, num_columns);
}

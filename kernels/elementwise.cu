// Fill, cast, scale and axpy; the contract is in src/ops/elementwise/mod.rs. A thread takes eight
// elements; each result is rounded once.
#include "common/vector.cuh"

namespace {

constexpr int THREADS = 256;

// This thread's first element.
DEVICE long long first_element() { return ((long long)blockIdx.x * THREADS + threadIdx.x) * 8; }

template <class T>
DEVICE void fill(T* out, float value, long long n) {
    long long i = first_element();
    Eight e;
#pragma unroll
    for (int j = 0; j < 8; j++) e.x[j] = value;
    if (i < n) store_eight(out + i, e, n - i);
}

template <class D, class S>
DEVICE void cast(D* out, const S* x, long long n) {
    long long i = first_element();
    if (i < n) store_eight(out + i, load_eight<Access::Streaming>(x + i, n - i), n - i);
}

template <class T>
DEVICE void scale(T* x, float factor, long long n) {
    long long i = first_element();
    if (i >= n) return;
    Eight e = load_eight<Access::Plain>(x + i, n - i);
#pragma unroll
    for (int j = 0; j < 8; j++) e.x[j] *= factor;
    store_eight(x + i, e, n - i);
}

template <class T>
DEVICE void axpy(T* y, const T* x, float a, long long n) {
    long long i = first_element();
    if (i >= n) return;
    Eight e = load_eight<Access::Streaming>(x + i, n - i);
    Eight out = load_eight<Access::Plain>(y + i, n - i);
#pragma unroll
    for (int j = 0; j < 8; j++) out.x[j] = fmaf(a, e.x[j], out.x[j]);
    store_eight(y + i, out, n - i);
}

}  // namespace

#define ELEMENTWISE(T)                                                              \
    KERNEL(elementwise_fill_##T, THREADS, T* out, float value, long long n) {       \
        fill(out, value, n);                                                        \
    }                                                                               \
    KERNEL(elementwise_scale_##T, THREADS, T* x, float factor, long long n) {       \
        scale(x, factor, n);                                                        \
    }                                                                               \
    KERNEL(elementwise_axpy_##T, THREADS, T* y, const T* x, float a, long long n) { \
        axpy(y, x, a, n);                                                           \
    }
using f32 = float;
ELEMENTWISE(f32)
ELEMENTWISE(bf16)

// elementwise_cast_<to>_<from>
#define CAST(D, S)                                                                 \
    KERNEL(elementwise_cast_##D##_##S, THREADS, D* out, const S* x, long long n) { \
        cast(out, x, n);                                                           \
    }
CAST(f32, f32)
CAST(f32, bf16)
CAST(bf16, f32)
CAST(bf16, bf16)

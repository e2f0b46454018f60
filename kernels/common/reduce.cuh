// Sums and maxima over a warp and over a block, in an order that never changes: results are the
// same bits in every run. Every thread of the block calls them and gets the result. T is float or
// double.
#pragma once
#include "../ptx/warp.cuh"

struct Add {
    template <class T>
    DEVICE static T identity() {
        return T(0);
    }
    template <class T>
    DEVICE static T apply(T a, T b) {
        return a + b;
    }
};

// Passes over NaN; minus infinity if there is nothing else.
struct Max {
    template <class T>
    DEVICE static T identity() {
        return T(-__uint_as_float(0x7f800000u));
    }
    DEVICE static float apply(float a, float b) { return fmaxf(a, b); }
};

// NaN once there is one. For magnitudes: the identity is 0.
struct MaxOrNan {
    template <class T>
    DEVICE static T identity() {
        return T(0);
    }
    template <class T>
    DEVICE static T apply(T a, T b) {
        return b > a || b != b ? b : a;
    }
};

// A butterfly: lane pairs 16, 8, 4, 2, 1 apart. The operations commute, so all lanes get the same
// bits (of NaNs: the same up to their payload).
template <class Operation, class T>
DEVICE T warp_reduce(T x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        x = Operation::apply(x, __shfl_xor_sync(ptx::FULL_WARP, x, distance));
    return x;
}

// `scratch`: one T per warp of shared memory. May be called again with the same scratch at once:
// it ends with a barrier.
template <class Operation, int THREADS, class T>
DEVICE T block_reduce(T x, T* scratch) {
    static_assert(THREADS % 32 == 0 && THREADS <= 1024, "whole warps");
    constexpr int WARPS = THREADS / 32;
    x = warp_reduce<Operation>(x);
    if constexpr (WARPS == 1) return x;
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    T total = Operation::template identity<T>();
#pragma unroll
    for (int i = 0; i < WARPS; i++) total = Operation::apply(total, scratch[i]);
    __syncthreads();
    return total;
}

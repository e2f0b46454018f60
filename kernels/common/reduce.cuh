// Sums and maxima over a warp and over a block, in an order that never changes: results are the
// same bits in every run. Every thread of the block calls them and gets the result.
#pragma once
#include "../ptx/warp.cuh"

struct Add {
    DEVICE static float identity() { return 0.0f; }
    DEVICE static float apply(float a, float b) { return a + b; }
};

struct Max {
    DEVICE static float identity() { return -__uint_as_float(0x7f800000u); }
    DEVICE static float apply(float a, float b) { return fmaxf(a, b); }
};

// A butterfly: lane pairs 16, 8, 4, 2, 1 apart. Addition commutes, so all lanes get the same bits.
template <class Operation>
DEVICE float warp_reduce(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        x = Operation::apply(x, __shfl_xor_sync(ptx::FULL_WARP, x, distance));
    return x;
}

// `scratch`: one float per warp of shared memory. May be called again with the same scratch at
// once: it ends with a barrier.
template <class Operation, int THREADS>
DEVICE float block_reduce(float x, float* scratch) {
    static_assert(THREADS % 32 == 0 && THREADS <= 1024, "whole warps");
    constexpr int WARPS = THREADS / 32;
    x = warp_reduce<Operation>(x);
    if constexpr (WARPS == 1) return x;
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float total = Operation::identity();
#pragma unroll
    for (int i = 0; i < WARPS; i++) total = Operation::apply(total, scratch[i]);
    __syncthreads();
    return total;
}

// Conformance: shuffles, votes, reductions, named barriers and elementary functions.
#include "../ptx/barrier.cuh"
#include "../ptx/bf16.cuh"
#include "../ptx/math.cuh"
#include "../ptx/warp.cuh"

KERNEL(conform_warp, 32, u32* out, const u32* in) {
    u32 lane = threadIdx.x, v = in[lane], full = ptx::FULL_WARP;
    out[0 * 32 + lane] = __shfl_sync(full, v, 5);
    out[1 * 32 + lane] = __shfl_sync(full, v, (int)lane + 3, 8);
    out[2 * 32 + lane] = __shfl_up_sync(full, v, 2);
    out[3 * 32 + lane] = __shfl_down_sync(full, v, 3, 16);
    out[4 * 32 + lane] = __shfl_xor_sync(full, v, 9);
    out[5 * 32 + lane] = __ballot_sync(full, v & 1);
    out[6 * 32 + lane] = __any_sync(full, v == in[7]);
    out[7 * 32 + lane] = __all_sync(full, v == in[7]);
    out[8 * 32 + lane] = ptx::reduce_add(v);
    out[9 * 32 + lane] = ptx::reduce_min(v);
    out[10 * 32 + lane] = ptx::reduce_max(v);
    out[11 * 32 + lane] = ptx::lane_id();
    if (lane < 12) out[12 * 32 + lane] = __shfl_xor_sync(0xfff, v, 1);
    else out[12 * 32 + lane] = v;
}

KERNEL(conform_math, 128, float* out, const float* in, int n) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= n) return;
    float x = in[i];
    out[i] = ptx::exp2_approx(x);
    out[n + i] = ptx::log2_approx(fabsf(x));
    out[2 * n + i] = ptx::rsqrt_approx(fabsf(x));
    out[3 * n + i] = ptx::rcp_approx(x);
    out[4 * n + i] = ptx::tanh_approx(x);
}

// Bits of bf16(x), and of the pair (x, -x).
KERNEL(conform_bf16, 128, u32* out, const float* in, int n) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= n) return;
    out[i] = ptx::to_bf16(in[i]).bits;
    out[n + i] = ptx::pack_bf16x2(in[i], -in[i]);
}

// A ring of two slots: warp 0 fills, warp 1 empties in reversed lane order.
KERNEL(conform_named_barriers, 64, float* out, const float* in, int n) {
    DYNAMIC_SHARED(shared);
    float* slots = (float*)shared;
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        for (int i = 0; i < n; i++) {
            if (i >= 2) ptx::barrier_sync(3 + i % 2, 64);  // empty
            slots[i % 2 * 32 + lane] = in[i * 32 + lane];
            ptx::barrier_arrive(1 + i % 2, 64);  // full
        }
    } else {
        for (int i = 0; i < n; i++) {
            ptx::barrier_sync(1 + i % 2, 64);
            out[i * 32 + lane] = slots[i % 2 * 32 + 31 - lane];
            if (i + 2 < n) ptx::barrier_arrive(3 + i % 2, 64);
        }
    }
}

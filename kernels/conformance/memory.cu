// Conformance: cp.async, hinted loads and stores, and order between blocks.
#include "../ptx/cp_async.cuh"
#include "../ptx/memory.cuh"

// Thread t copies 16 bytes with source size t % 17 (and 8, 4 with t % 9, t % 5).
KERNEL(conform_cp_async, 32, uint4* out, const unsigned char* in) {
    DYNAMIC_SHARED(shared);
    u32 lane = threadIdx.x, at = ptx::shared_address(shared) + lane * 16;
    const unsigned char* source = in + lane * 16;
    ptx::cp_async_16(at, source, lane % 17);
    ptx::cp_async_commit();
    ptx::cp_async_8(at + 512, source, lane % 9);
    ptx::cp_async_8(at + 520, source + 8);
    ptx::cp_async_commit();
    ptx::cp_async_4(at + 1024, source, lane % 5);
    ptx::cp_async_4(at + 1028, source + 4);
    ptx::cp_async_8(at + 1032, source + 8);
    ptx::cp_async_commit();
    ptx::cp_async_wait<2>();
    __syncwarp();
    out[lane] = ((uint4*)shared)[lane ^ 1];
    ptx::cp_async_wait<0>();
    __syncwarp();
    out[32 + lane] = ((uint4*)shared)[32 + (lane ^ 1)];
    out[64 + lane] = ((uint4*)shared)[64 + (lane ^ 1)];
}

KERNEL(conform_hints, 64, uint4* out, const uint4* in) {
    uint4 a = ptx::load_streaming(in + threadIdx.x), b = ptx::load_constant(in + threadIdx.x);
    a.x += b.x;
    ptx::store_streaming(out + threadIdx.x, a);
}

// Blocks update `state` in the order of their index; the flag says whose turn it is.
KERNEL(conform_turns, 32, float* state, u32* turn) {
    if (threadIdx.x == 0)
        while (ptx::load_acquire(turn) != blockIdx.x) {
        }
    __syncwarp();
    state[threadIdx.x] = state[threadIdx.x] * 2 + (float)blockIdx.x;
    __syncwarp();
    if (threadIdx.x == 0) ptx::store_release(turn, blockIdx.x + 1);
}

// Every block writes a partial sum; the last one to arrive adds them in the order of blocks.
KERNEL(conform_last_block, 32, float* out, float* partials, u32* arrived, const float* in) {
    partials[blockIdx.x * 32 + threadIdx.x] = in[blockIdx.x * 32 + threadIdx.x] * 2;
    __syncwarp();
    u32 before = 0;
    if (threadIdx.x == 0) before = ptx::add_acquire_release(arrived, 1);
    before = __shfl_sync(0xffffffffu, before, 0);
    if (before + 1 != gridDim.x) return;
    __syncwarp();  // the acquire was lane 0's
    float sum = 0;
    for (u32 i = 0; i < gridDim.x; i++) sum += partials[i * 32 + threadIdx.x];
    out[threadIdx.x] = sum;
}

// The same with CUDA's classic pattern: fence, relaxed atomic, fence.
KERNEL(conform_fence_atomic, 32, float* out, float* partials, u32* arrived, const float* in) {
    partials[blockIdx.x * 32 + threadIdx.x] = in[blockIdx.x * 32 + threadIdx.x] * 2;
    __syncwarp();
    u32 before = 0;
    if (threadIdx.x == 0) {
        __threadfence();
        before = atomicAdd(arrived, 1u);
        __threadfence();
    }
    before = __shfl_sync(0xffffffffu, before, 0);
    if (before + 1 != gridDim.x) return;
    __syncwarp();
    float sum = 0;
    for (u32 i = 0; i < gridDim.x; i++) sum += partials[i * 32 + threadIdx.x];
    out[threadIdx.x] = sum;
}

// A histogram in shared memory by integer atomics, added to a global one.
KERNEL(conform_atomics, 64, u32* histogram, const u32* in, int n) {
    DYNAMIC_SHARED(shared);
    u32* bins = (u32*)shared;
    if (threadIdx.x < 16) bins[threadIdx.x] = 0;
    __syncthreads();
    for (int i = (int)(blockIdx.x * 64 + threadIdx.x); i < n; i += (int)gridDim.x * 64)
        atomicAdd(&bins[in[i] % 16], 1u);
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(&histogram[threadIdx.x], bins[threadIdx.x]);
}

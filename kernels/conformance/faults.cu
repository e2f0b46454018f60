// Kernels with planted bugs, to see that each is reported. `fault` 0 is the correct kernel.
// Emulator only: on a GPU these are what they are, bugs.
#include "../ptx/barrier.cuh"
#include "../ptx/cp_async.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/memory.cuh"
#include "../ptx/warp.cuh"

// out[block] = sum of 64 values, through shared memory.
KERNEL(fault_block_sum, 64, float* out, const float* in, int fault) {
    DYNAMIC_SHARED(shared);
    float* values = (float*)shared;
    int t = (int)threadIdx.x;
    if (fault == 3 && t == 40) return;  // misses the barrier
    if (fault != 7) values[t] = in[blockIdx.x * 64 + t];
    if (fault != 1) __syncthreads();
    if (t == 0) {
        float sum = 0;
        for (int i = 0; i < (fault == 2 ? 65 : 64); i++) sum += values[i];  // line: shared-oob
        if (fault == 4) out[gridDim.x] = sum;                               // line: global-oob
        if (fault == 5) *(float*)((char*)out + 2) = sum;
        if (fault == 6) out = nullptr;
        if (fault == 8) out[0] = sum;  // every block writes the same place
        else out[blockIdx.x] = sum;    // line: null
    }
    if (fault == 9) {  // half the warp is somewhere else
        if (t % 32 < 16) __shfl_xor_sync(0xffffffffu, t, 1);
        else __syncwarp();
    }
    if (fault == 10 && t < 32) ptx::barrier_sync(3, 64);  // nobody else comes
    if (fault == 11) __shfl_sync(0x0000ffffu, t, 20);
    if (fault == 12) ptx::barrier_sync(2, 48);
}

// Each thread fetches 16 bytes and reads its neighbour's.
KERNEL(fault_cp_async, 64, uint4* out, const uint4* in, int fault) {
    DYNAMIC_SHARED(shared);
    u32 at = ptx::shared_address(shared);
    int t = (int)threadIdx.x;
    ptx::cp_async_16(at + t * 16, in + (fault == 5 ? t + 1 : t));
    if (fault != 4) ptx::cp_async_commit();
    if (fault == 2) ptx::cp_async_wait<1>();
    else if (fault != 1) ptx::cp_async_wait<0>();
    if (fault != 3) __syncthreads();
    out[t] = ((uint4*)shared)[t ^ 33];
    if (fault == 6) ptx::cp_async_16(at + t * 16, in + t);  // refilled while others still read
    if (fault == 6) ptx::cp_async_wait<0>();
    if (fault == 7) ptx::cp_async_16(at + t * 16 + 8, in + t);
}

// A warp transposes 8x8 through shared memory.
KERNEL(fault_warp, 32, float* out, const float* in, int fault) {
    DYNAMIC_SHARED(shared);
    float* tile = (float*)shared;
    int t = (int)threadIdx.x;
    tile[t] = in[t];
    tile[32 + t] = in[32 + t];
    if (fault != 1) __syncwarp();
    float a = tile[t % 8 * 8 + t / 8], b = tile[t % 8 * 8 + 4 + t / 8];
    if (fault != 2) __syncwarp();
    tile[t] = a;
    out[t] = a;
    out[32 + t] = b;
    if (fault == 3) {  // an .aligned instruction in diverged branches
        u32 r[1], at = ptx::shared_address(shared) + t % 8 * 32;
        if (t < 16) ptx::ldmatrix_x1(r, at);
        else ptx::ldmatrix_x1(r, at);
    }
}

// The last block to arrive reads what all blocks wrote.
KERNEL(fault_last_block, 32, float* out, float* partials, u32* arrived, int fault) {
    partials[blockIdx.x * 32 + threadIdx.x] = 1;
    if (fault != 1) __syncwarp();
    u32 before = 0;
    if (threadIdx.x == 0) {
        if (fault != 2) __threadfence();
        before = atomicAdd(arrived, 1u);
        if (fault != 3) __threadfence();
    }
    before = __shfl_sync(0xffffffffu, before, 0);
    if (before + 1 != gridDim.x) return;
    if (fault != 4) __syncwarp();
    float sum = 0;
    for (u32 i = 0; i < gridDim.x; i++) sum += partials[i * 32 + threadIdx.x];
    out[threadIdx.x] = sum;
}

// Waits for a flag that nobody sets.
KERNEL(fault_hang, 32, u32* flag, int fault) {
    if (fault && threadIdx.x == 0)
        while (ptx::load_acquire(flag) != 1) {
        }
}

// Planted bugs in kernels with asynchronous instructions; see faults.cu.
#include "../ptx/bf16.cuh"
#include "../ptx/cluster.cuh"
#include "../ptx/fence.cuh"
#include "../ptx/mbarrier.cuh"
#include "../ptx/memory.cuh"
#include "../ptx/tma.cuh"
#include "../ptx/wgmma.cuh"

// A ring of two slots: thread 0 loads 128 bytes, warp 1 reads them.
KERNEL(fault_ring, 64, float* out, const float* in, int n, int fault) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared), full = base + 1024, empty = full + 64;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            ptx::mbarrier_init(full + 8 * i, 1);
            ptx::mbarrier_init(empty + 8 * i, fault == 7 ? 16 : 32);
        }
        if (fault != 5) ptx::fence_mbarrier_init();
    }
    if (fault != 6) __syncthreads();
    u32 parity = 0;
    for (int i = 0; i < n; i++) {
        int stage = i % 2;
        if (threadIdx.x == 0) {
            if (fault != 2) ptx::mbarrier_wait(empty + 8 * stage, parity ^ 1);
            ptx::mbarrier_arrive_expect_tx(full + 8 * stage, fault == 4 ? 64 : 128);
            if (fault != 8) ptx::bulk_load(base + 128 * stage, in + i * 32, 128, full + 8 * stage);
        } else if (threadIdx.x >= 32) {
            u32 lane = threadIdx.x - 32;
            if (fault == 9) ptx::mbarrier_try_wait(full + 8 * stage, parity);
            else if (fault != 1)
                ptx::mbarrier_wait(full + 8 * stage, fault == 3 ? parity ^ 1 : parity);
            out[i * 32 + lane] = ((float*)(shared + 128 * stage))[31 - lane] + 1;
            ptx::mbarrier_arrive(empty + 8 * stage);
        }
        if (stage == 1) parity ^= 1;
    }
}

// Two rounds of: 64 threads fill 1 KiB, one stores it.
KERNEL(fault_store, 64, float* out, int fault) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared);
    for (int round = 0; round < 2; round++) {
        if (threadIdx.x == 0 && fault != 4) ptx::bulk_wait_read<0>();
        __syncthreads();
        for (int i = 0; i < 4; i++) ((float*)shared)[i * 64 + threadIdx.x] = (float)(round + i);
        if (fault != 1 && fault != 3) ptx::fence_proxy_async();
        if (fault != 2) __syncthreads();
        if (threadIdx.x == 0) {
            if (fault == 3) ptx::fence_proxy_async();  // by the issuer only
            ptx::bulk_store(out + round * 256, base, 1024);
            ptx::bulk_commit();
        }
    }
    if (threadIdx.x == 0 && fault != 5) ptx::bulk_wait<0>();
    if (fault == 6 && threadIdx.x == 0) {  // freed, but not complete
        ptx::bulk_store(out, base, 1024);
        ptx::bulk_commit();
        ptx::bulk_wait_read<0>();
    }
    if (fault == 6) {
        __syncthreads();
        if (threadIdx.x == 1) out[512] = out[0];
    }
}

// 64x64x16 from operands written by the threads themselves.
KERNEL(fault_wgmma, 128, float* out, int fault) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared);
    for (int i = 0; i < 32; i++) ((u32*)shared)[i * 128 + threadIdx.x] = 0x3f803f80;  // ones
    if (fault != 1) ptx::fence_proxy_async();
    if (fault != 2) __syncthreads();
    u64 a = ptx::matrix_descriptor(base + (fault == 8 ? 128 : 0), 16, 1024, ptx::SWIZZLE_128B);
    u64 b = ptx::matrix_descriptor(base + (fault == 9 ? 16384 : 8192), 16, 1024, ptx::SWIZZLE_128B);
    float d[32];
    if (fault != 3) ptx::wgmma_fence();
    ptx::wgmma(d, a, b, 0);
    if (fault == 7) d[3] += 1;  // while in flight
    if (fault != 5) ptx::wgmma_commit();
    if (fault == 6) ((u32*)shared)[threadIdx.x] = 0;  // rewritten while it may be read
    if (fault == 4) ptx::wgmma_wait<1>();
    else ptx::wgmma_wait<0>();
    for (int i = 0; i < 32; i++) out[threadIdx.x * 32 + i] = d[i];
}

// Each block reads its neighbour's shared memory.
KERNEL(fault_cluster, 32, u32* out, int fault) {
    DYNAMIC_SHARED(shared);
    u32 at = ptx::shared_address(shared) + threadIdx.x * 4, rank = ptx::cluster_rank();
    ((u32*)shared)[threadIdx.x] = rank;
    if (fault != 1) {
        ptx::cluster_arrive();
        ptx::cluster_wait();
    } else {
        __syncthreads();
    }
    out[blockIdx.x * 32 + threadIdx.x] = ptx::cluster_load(ptx::cluster_map(at, rank ^ 1));
    if (fault == 2) ((u32*)shared)[threadIdx.x] = 5;  // the neighbour may not have read it yet
    if (fault == 3) return;
    ptx::cluster_arrive();
    ptx::cluster_wait();
}

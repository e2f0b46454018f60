// Conformance: stmatrix, elect, mbarrier, TMA and bulk copies, clusters.
#include "../ptx/bf16.cuh"
#include "../ptx/cluster.cuh"
#include "../ptx/fence.cuh"
#include "../ptx/mbarrier.cuh"
#include "../ptx/memory.cuh"
#include "../ptx/regs.cuh"
#include "../ptx/stmatrix.cuh"
#include "../ptx/tma.cuh"
#include "../ptx/warp.cuh"

// Three tiles of 512 bytes: stmatrix x4, x4 transposed, x2 (its second half stays as it was).
KERNEL(conform_stmatrix, 32, uint4* out, const u32* in) {
    DYNAMIC_SHARED(shared);
    u32 lane = threadIdx.x, at = ptx::shared_address(shared) + lane * 16;
    u32 r[4], r2[2];
    for (int i = 0; i < 4; i++) r[i] = in[i * 32 + lane];
    for (int i = 0; i < 2; i++) r2[i] = r[i];
    ((uint4*)shared)[64 + lane] = make_uint4(7, 7, 7, 7);
    __syncwarp();
    ptx::stmatrix_x4(at, r);
    ptx::stmatrix_x4_trans(at + 512, r);
    ptx::stmatrix_x2(at + 1024, r2);
    __syncwarp();
    for (int i = 0; i < 3; i++) out[i * 32 + lane] = ((uint4*)shared)[i * 32 + (lane ^ 1)];
}

// How many lanes were elected, and the same one twice?
KERNEL(conform_elect, 64, u32* out) {
    bool first = ptx::elect_one();
    bool second = ptx::elect_one();
    u32 a = __ballot_sync(0xffffffffu, first), b = __ballot_sync(0xffffffffu, second);
    out[threadIdx.x] = (u32)__popc(a) | (a == b) << 8;
}

DEVICE void start_barrier(u32 barrier, u32 arrivals) {
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, arrivals);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
}

// A ring of `stages` slots between warp 0 (bulk loads of 128 bytes) and warp 1; the parities wrap.
KERNEL(conform_ring, 64, float* out, const float* in, int n, int stages) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared), full = base + 1024, empty = full + 64;
    if (threadIdx.x == 0) {
        for (int i = 0; i < stages; i++) {
            ptx::mbarrier_init(full + 8 * i, 1);
            ptx::mbarrier_init(empty + 8 * i, 32);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    int stage = 0;
    u32 parity = 0;
    for (int i = 0; i < n; i++) {
        if (threadIdx.x == 0) {
            ptx::mbarrier_wait(empty + 8 * stage, parity ^ 1);
            ptx::mbarrier_arrive_expect_tx(full + 8 * stage, 128);
            ptx::bulk_load(base + 128 * stage, in + i * 32, 128, full + 8 * stage);
        } else if (threadIdx.x >= 32) {
            u32 lane = threadIdx.x - 32;
            ptx::mbarrier_wait(full + 8 * stage, parity);
            out[i * 32 + lane] = ((float*)(shared + 128 * stage))[31 - lane] + 1;
            ptx::mbarrier_arrive(empty + 8 * stage);
        }
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
}

// Loads one box and writes shared memory out as it lies there.
DEVICE void dump_box(uint4* out, u32 bytes, unsigned char* shared, u32 barrier) {
    ptx::mbarrier_wait(barrier, 0);
    for (u32 i = threadIdx.x; i < bytes / 16; i += blockDim.x) out[i] = ((uint4*)shared)[i];
}

KERNEL(conform_tma_2d, 32, const __grid_constant__ TensorMap map, uint4* out, u32 bytes, int c0,
       int c1) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared), barrier = base + 32768;
    start_barrier(barrier, 1);
    if (threadIdx.x == 0) {
        ptx::prefetch_tensor_map(&map);
        ptx::mbarrier_arrive_expect_tx(barrier, bytes);
        ptx::tma_load(base, &map, barrier, c0, c1);
    }
    dump_box(out, bytes, shared, barrier);
}

KERNEL(conform_tma_3d, 32, const __grid_constant__ TensorMap map, uint4* out, u32 bytes, int c0,
       int c1, int c2) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared), barrier = base + 32768;
    start_barrier(barrier, 1);
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect_tx(barrier, bytes);
        ptx::tma_load_hinted(base, &map, barrier, ptx::policy_evict_first(), c0, c1, c2);
    }
    dump_box(out, bytes, shared, barrier);
}

// Shared memory is filled with 0, 1, 2, ... (f32) and stored as a box; with `add` twice added.
KERNEL(conform_tma_store, 32, const __grid_constant__ TensorMap map, u32 bytes, int c0, int c1,
       int add) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared);
    for (u32 i = threadIdx.x; i < bytes / 4; i += 32) ((float*)shared)[i] = (float)i;
    ptx::fence_proxy_async();
    __syncwarp();
    if (threadIdx.x == 0) {
        if (add) {
            ptx::tma_reduce_add(&map, base, c0, c1);
            ptx::bulk_commit();
            ptx::bulk_wait<0>();
            ptx::tma_reduce_add(&map, base, c0, c1);
        } else {
            ptx::tma_store(&map, base, c0, c1);
        }
        ptx::bulk_commit();
        ptx::bulk_wait<0>();
    }
}

// Bulk copies without a tensor map, in and out; the second store adds.
KERNEL(conform_bulk, 32, float* out, const float* in, u32 bytes) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared), barrier = base + 4096;
    start_barrier(barrier, 1);
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect_tx(barrier, bytes);
        ptx::bulk_load(base, in, bytes, barrier);
    }
    ptx::mbarrier_wait(barrier, 0);
    for (u32 i = threadIdx.x; i < bytes / 4; i += 32) ((float*)shared)[i] *= 2;
    ptx::fence_proxy_async();
    __syncwarp();
    if (threadIdx.x == 0) {
        ptx::bulk_store(out, base, bytes);
        ptx::bulk_commit();
        ptx::bulk_wait<0>();
        ptx::bulk_reduce_add_f32(out, base, bytes);
        ptx::bulk_commit();
        ptx::bulk_wait_read<0>();
    }
}

// A cluster passes values around through shared memory, remote arrivals and a multicast load.
KERNEL(conform_cluster, 32, u32* out, const float* in) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared), barrier = base + 1024, arrivals = base + 1032;
    u32 rank = ptx::cluster_rank(), size = ptx::cluster_size(), next = (rank + 1) % size;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
        ptx::mbarrier_init(arrivals, 32);
        ptx::fence_mbarrier_init();
    }
    ((u32*)shared)[threadIdx.x] = rank * 100 + threadIdx.x;
    ptx::cluster_arrive();
    ptx::cluster_wait();
    u32 from_next = ptx::cluster_load(ptx::cluster_map(base + 4 * threadIdx.x, next));
    ptx::mbarrier_arrive_remote(ptx::cluster_map(arrivals, next));
    ptx::mbarrier_wait_cluster(arrivals, 0);
    out[blockIdx.x * 32 + threadIdx.x] = from_next;
    ptx::cluster_arrive();
    ptx::cluster_wait();
}

// Rank 0 loads a box into every block of the cluster at once.
KERNEL(conform_multicast, 32, const __grid_constant__ TensorMap map, uint4* out, u32 bytes) {
    DYNAMIC_SHARED(shared);
    u32 base = ptx::shared_address(shared), barrier = base + 32768;
    start_barrier(barrier, 1);
    if (threadIdx.x == 0) ptx::mbarrier_arrive_expect_tx(barrier, bytes);
    ptx::cluster_arrive();
    ptx::cluster_wait();
    if (ptx::cluster_rank() == 0 && threadIdx.x == 0)
        ptx::tma_load_multicast(base, &map, barrier, (u16)((1u << ptx::cluster_size()) - 1), 0, 0);
    ptx::mbarrier_wait(barrier, 0);
    for (u32 i = threadIdx.x; i < bytes / 16; i += 32)
        out[blockIdx.x * (bytes / 16) + i] = ((uint4*)shared)[i];
    ptx::cluster_arrive();
    ptx::cluster_wait();
}

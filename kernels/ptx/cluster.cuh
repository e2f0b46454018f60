// Thread block clusters (sm_90): blocks that run together and reach each other's shared memory.
//
// A block must not exit while another still accesses its shared memory: end with cluster_sync.
#pragma once
#include "compiler.cuh"

#if PTX_SM90
namespace ptx {

DEVICE u32 cluster_rank() {
#if EMULATED
    return emu::cluster_rank();
#else
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
#endif
}

DEVICE u32 cluster_size() {
#if EMULATED
    return emu::cluster_size();
#else
    u32 size;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
#endif
}

// barrier.cluster.arrive.release: every thread of every block of the cluster arrives ...
DEVICE void cluster_arrive(EMU_SITE_ONLY) {
#if EMULATED
    emu::cluster_arrive(site);
#else
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

// ... and barrier.cluster.wait.acquire waits for that.
DEVICE void cluster_wait(EMU_SITE_ONLY) {
#if EMULATED
    emu::cluster_wait(site);
#else
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// mapa: the address, in the window of the cluster, of the same place in block `rank`.
DEVICE u32 cluster_map(u32 shared_address, u32 rank) {
#if EMULATED
    return emu::cluster_map(shared_address, rank);
#else
    u32 mapped;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(shared_address), "r"(rank));
    return mapped;
#endif
}

// ld.shared::cluster: reads another block's shared memory.
DEVICE u32 cluster_load(u32 mapped_address) {
#if EMULATED
    return emu::cluster_load(mapped_address);
#else
    u32 value;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(mapped_address) : "memory");
    return value;
#endif
}

}  // namespace ptx
#endif

// Clusters: blocks that are alive together, with one clock domain and one barrier.
#include <string.h>

#include "engine.h"

namespace emu {

uint32_t cluster_rank() { return (u32)self()->block->rank; }
uint32_t cluster_size() { return (u32)self()->block->cluster->blocks.size(); }

// barrier.cluster.arrive and .wait are used in pairs by every thread of the cluster. The wait
// always follows the arrive of the same thread, so both are one barrier; only the arrive releases.
void cluster_arrive(int site) {
    Pc pc = CALLER;
    meet(~0u, WarpOp::ClusterArrive, (u64)site, nullptr, pc, [&](Warp&, void**) {});
    Thread& thread = *self();
    Cluster& cluster = *thread.block->cluster;
    release(thread, cluster.handover);
    int all = (int)cluster.blocks.size() * thread.block->num_threads;
    if (++cluster.arrived < all) return;
    made_progress();
    cluster.arrived = 0;
    cluster.generation++;
    if (launch->config.options.check_races) cluster.handover.complete();
    std::vector<Thread*> waiting;
    waiting.swap(cluster.waiting);
    for (Thread* waiter : waiting) {
        acquire(*waiter, cluster.handover);
        make_ready(waiter);
    }
}

void cluster_wait(int site) {
    Pc pc = CALLER;
    meet(~0u, WarpOp::ClusterWait, (u64)site, nullptr, pc, [&](Warp&, void**) {});
    Thread& thread = *self();
    Cluster& cluster = *thread.block->cluster;
    u32 waited_for = thread.cluster_generation++;
    if (cluster.generation > waited_for) {
        acquire(thread, cluster.handover);
        return;
    }
    cluster.waiting.push_back(&thread);
    block_on(WaitFor::Cluster, 0, pc);
}

uint32_t cluster_map(uint32_t shared, uint32_t rank) {
    if (rank >= cluster_size()) {
        report("cluster-rank", CALLER, "mapa with rank %u in a cluster of %u blocks", rank,
               cluster_size());
        return shared;
    }
    return (shared & ((1u << RANK_SHIFT) - 1)) | (rank + 1) << RANK_SHIFT;
}

uint32_t cluster_load(uint32_t mapped) {
    Pc pc = CALLER;
    Block* block;
    u32 offset, value = 0xffffffffu;
    if (!resolve_shared(mapped, 4, 4, pc, "ld.shared::cluster", &block, &offset)) return value;
    shared_access(*self(), *block, offset, 4, Access::Read, pc);
    memcpy(&value, block->shared + offset, 4);
    return value;
}

}  // namespace emu

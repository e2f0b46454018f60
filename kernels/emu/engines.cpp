// When asynchronous work happens, as far as it is free to choose.
#include "engine.h"

namespace emu {

// One step of a random engine. TMA moves whenever it likes; the others only when nothing else can
// run (they are also forced by their waits), so that they are late as a rule.
bool advance_engines(bool forced) {
    auto& clusters = launch->clusters;
    size_t count = clusters.size(), start = count > 1 ? launch->below((u32)count) : 0;
    for (size_t i = 0; i < count; i++) {
        Cluster& cluster = *clusters[(start + i) % count];
        if (!cluster.active) continue;
        for (Block& block : cluster.blocks)
            if (!block.loads.empty()) {
                finish_tma_load(block, launch->below((u32)block.loads.size()));
                return true;
            }
    }
    if (forced) return false;

    Cluster& cluster = *clusters[start];
    if (!cluster.active) return false;
    Block& block = cluster.blocks[launch->below((u32)cluster.blocks.size())];
    Warp& warp = block.warps[launch->below((u32)block.num_warps)];
    for (auto& group : warp.wgmma_groups)
        for (auto& op : group)
            if (!op.done) {
                apply_wgmma(warp, op);
                return true;
            }
    Thread& thread = block.threads[launch->below((u32)block.num_threads)];
    for (auto& group : thread.copy_groups)
        for (auto& op : group)
            if (!op.done) {
                apply_copy(thread, op);
                return true;
            }
    for (auto& group : thread.store_groups)
        for (auto& op : group.stores) {
            if (!op.read) {
                read_store_source(thread, op);
                return true;
            }
            if (!op.written) {
                write_store_result(op);
                return true;
            }
        }
    return false;
}

}  // namespace emu

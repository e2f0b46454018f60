// The life of a cluster of blocks: its start, what must be true at its end, and what to say when
// nobody can run any more.
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "engine.h"

namespace emu {

namespace {

void start_warp(Block& block, int id, int agent) {
    Warp& warp = block.warps[(size_t)id];
    warp = Warp();
    warp.id = id;
    warp.agent = agent;
    warp.block = &block;
    warp.priority = launch->below(1u << 30);
    warp.elected_lane = launch->below(WARP);
    warp.clock_version = 1;
}

void start_thread(Block& block, int id, int agent) {
    Thread& thread = block.threads[id];
    Cluster& cluster = *block.cluster;
    thread.id = id;
    thread.lane = id % WARP;
    thread.agent = agent;
    thread.block = &block;
    thread.warp = &block.warps[(size_t)(id / WARP)];
    thread.false_try_waits = 0;
    thread.cluster_generation = 0;
    thread.open_copies.clear();
    thread.copy_groups.clear();
    thread.open_stores = TmaStoreGroup();
    thread.store_groups.clear();
    thread.clock = ThreadClock();
    if (launch->config.options.check_races) {
        thread.clock.general = &cluster.general[(size_t)agent * (size_t)cluster.num_agents];
        thread.clock.async = &cluster.async[(size_t)agent * (size_t)cluster.num_agents];
        thread.clock.general[agent] = 1;
    }
    const Dim3 &size = launch->config.block, &grid = launch->config.grid;
    u32 i = (u32)id;
    *thread.context = Context{{i % size.x, i / size.x % size.y, i / size.x / size.y},
                              block.index,
                              {size.x, size.y, size.z},
                              {grid.x, grid.y, grid.z}};
    thread.state = State::Blocked;
    make_ready(&thread);
}

Index3 block_index(int cluster_index, int rank) {
    const Dim3 &grid = launch->config.grid, &dims = launch->config.cluster;
    u32 across = grid.x / dims.x, down = grid.y / dims.y;
    u32 c = (u32)cluster_index, r = (u32)rank;
    return {c % across * dims.x + r % dims.x, c / across % down * dims.y + r / dims.x % dims.y,
            c / across / down * dims.z + r / dims.x / dims.y};
}

void start_block(Block& block) {
    block.index = block_index(block.cluster->index, block.rank);
    block.num_warps = (block.num_threads + WARP - 1) / WARP;
    block.running = block.num_threads;
    block.num_mbarriers = 0;
    block.shared_bytes = launch->config.shared_bytes;
    memset(block.shared, 0xff, block.shared_bytes);  // NaN in every float format
    block.loads.clear();
    block.mbarriers.clear();
    block.mbarriers.reserve(MAX_MBARRIERS);
    block.mbarrier_at.assign(block.shared_bytes / 8 + 1, 0);
    block.warps.resize((size_t)block.num_warps);
    for (auto& barrier : block.barriers) {
        barrier.expected = barrier.arrived = 0;
        barrier.waiting.clear();
        barrier.handover.reset(block.cluster->num_agents);
    }
    start_shared(block);
}

void finish_thread(Thread& thread) {
    for (auto& store : thread.open_stores.stores)
        report("exit-async", store.pc, "a bulk store is never committed");
    for (auto& group : thread.store_groups)
        for (auto& store : group.stores) {
            if (!group.source_released)
                report("exit-async", store.pc,
                       "the block exits while a bulk store may still read its shared memory");
            read_store_source(thread, store);
            write_store_result(store);
        }
}

void finish_warp(Block& block, Warp& warp) {
    if (!warp.open_wgmma.empty())
        report("wgmma-commit", warp.open_wgmma[0].pc, "wgmma is never committed");
    if (!warp.wgmma_groups.empty() && !warp.wgmma_groups.back().empty())
        report("wgmma-wait", warp.wgmma_groups.back()[0].pc, "wgmma is never waited for");
    if (warp.wgmma_history != block.warps[(size_t)(warp.id & ~3)].wgmma_history)
        report("wgmma-diverged", 0, "warps %d and %d of a warpgroup issued different wgmma",
               warp.id & ~3, warp.id);
}

// Findings here name the first thread of the block or warp they are about.
void finish_block(Block& block) {
    launch->current = block.threads;
    while (!block.loads.empty()) {
        report("exit-async", block.loads[0].pc,
               "block %d of its cluster exits with a TMA load in "
               "flight",
               block.rank);
        finish_tma_load(block, 0);
    }
    for (int i = 0; i < block.num_threads; i++) {
        launch->current = &block.threads[i];
        finish_thread(block.threads[i]);
    }
    for (auto& warp : block.warps) {
        launch->current = &block.threads[warp.id * WARP];
        finish_warp(block, warp);
    }
    launch->current = block.threads;
    for (auto& mbarrier : block.mbarriers)
        if (mbarrier.live && mbarrier.tx)
            report("mbarrier-tx", 0,
                   "mbarrier shared+%u ends with %lld bytes announced but not "
                   "delivered",
                   mbarrier.offset, (long long)mbarrier.tx);
    launch->current = nullptr;
}

std::string waits_for(const Block& block, const Thread& thread) {
    char text[240];
    switch (thread.wait_for) {
    case WaitFor::Mbarrier: {
        const Mbarrier& m = block.mbarriers[thread.wait_detail];
        snprintf(text, sizeof text,
                 "mbarrier shared+%u, parity %u (in phase %u, %lld of %u arrivals and %lld bytes "
                 "missing)",
                 m.offset, thread.wait_parity, m.phase, (long long)m.pending, m.count,
                 (long long)m.tx);
        break;
    }
    case WaitFor::Barrier: {
        const NamedBarrier& b = block.barriers[thread.wait_detail];
        snprintf(text, sizeof text, "barrier %u (%d of %d threads arrived)", thread.wait_detail,
                 b.arrived, b.expected);
        break;
    }
    case WaitFor::Cluster:
        snprintf(text, sizeof text, "the cluster barrier (%d threads arrived)",
                 block.cluster->arrived);
        break;
    default:
        snprintf(text, sizeof text, "the other lanes of its warp in %s",
                 warp_op_name((int)thread.wait_detail));
    }
    return text + (" at " + source_line(thread.wait_pc));
}

}  // namespace

void start_cluster(Cluster& cluster) {
    int threads = launch->num_threads, warps = (threads + WARP - 1) / WARP;
    int ranks = (int)cluster.blocks.size();
    int per_block = threads + MAX_MBARRIERS + warps;
    cluster.num_agents = (ranks * per_block + 7) & ~7;
    cluster.running = ranks * threads;
    cluster.active = true;
    cluster.arrived = 0;
    cluster.generation = 0;
    cluster.waiting.clear();
    cluster.handover.reset(cluster.num_agents);
    if (launch->config.options.check_races) {
        size_t entries = (size_t)(ranks * threads) * (size_t)cluster.num_agents;
        cluster.general.assign(entries, 0);
        cluster.async.assign(entries, 0);
    }
    for (Block& block : cluster.blocks) {
        start_block(block);
        int first_warp_agent = ranks * (threads + MAX_MBARRIERS) + block.rank * warps;
        for (int i = 0; i < warps; i++) start_warp(block, i, first_warp_agent + i);
        for (int i = 0; i < threads; i++) start_thread(block, i, block.rank * threads + i);
    }
}

void finish_cluster(Cluster& cluster) {
    made_progress();
    cluster.active = false;
    for (Block& block : cluster.blocks) finish_block(block);
}

void report_deadlock() {
    std::map<std::string, std::pair<int, const Thread*>> waits;
    for (auto& cluster : launch->clusters) {
        if (!cluster->active) continue;
        for (Block& block : cluster->blocks)
            for (int i = 0; i < block.num_threads; i++) {
                const Thread& thread = block.threads[i];
                if (thread.state != State::Blocked) continue;
                auto& entry = waits[waits_for(block, thread)];
                entry.first++;
                if (!entry.second) entry.second = &thread;
            }
    }
    Thread* running = launch->current;
    launch->current = nullptr;
    std::string text;
    for (auto& [what, who] : waits) {
        const Context& c = *who.second->context;
        char first[120];
        snprintf(first, sizeof first, "%d threads (first: block (%u,%u,%u) thread (%u,%u,%u)) ",
                 who.first, c.block.x, c.block.y, c.block.z, c.thread.x, c.thread.y, c.thread.z);
        text += first + ("wait for " + what) + "; ";
    }
    report("deadlock", 0, "%s", text.substr(0, 580).c_str());
    launch->current = running;
}

}  // namespace emu

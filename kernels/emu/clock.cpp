#include "clock.h"

#include <algorithm>

#include "engine.h"

namespace emu {

void raise(Tick* __restrict clock, const Tick* __restrict other, int num_agents) {
    for (int i = 0; i < num_agents; i++) clock[i] = std::max(clock[i], other[i]);
}

void lower(Tick* __restrict clock, const Tick* __restrict other, int num_agents) {
    for (int i = 0; i < num_agents; i++) clock[i] = std::min(clock[i], other[i]);
}

void Handover::reset(int num_agents) {
    for (auto* clock : {&gathered, &gathered_async, &published, &published_async})
        clock->assign((size_t)num_agents, 0);
    gathered_foreign = published_foreign = nullptr;
}

void Handover::complete() {
    published.swap(gathered);
    published_async.swap(gathered_async);
    std::fill(gathered.begin(), gathered.end(), 0);
    std::fill(gathered_async.begin(), gathered_async.end(), 0);
    published_foreign = std::move(gathered_foreign);
    gathered_foreign = nullptr;
}

void release(Thread& thread, Handover& handover) {
    if (!launch->config.options.check_races) return;
    int n = thread.block->cluster->num_agents;
    raise(handover.gathered.data(), thread.clock.general, n);
    raise(handover.gathered_async.data(), thread.clock.async, n);
    handover.gathered_foreign = merge(handover.gathered_foreign, thread.clock.foreign);
    thread.clock.general[thread.agent]++;
}

void acquire(Thread& thread, const Handover& handover) {
    if (!launch->config.options.check_races) return;
    int n = thread.block->cluster->num_agents;
    raise(thread.clock.general, handover.published.data(), n);
    raise(thread.clock.async, handover.published_async.data(), n);
    thread.clock.foreign = merge(thread.clock.foreign, handover.published_foreign);
    thread.warp->clock_version++;
}

ForeignPtr merge(const ForeignPtr& a, const ForeignPtr& b) {
    if (!b || a == b) return a;
    if (!a) return b;
    auto merged = std::make_shared<Foreign>(*a);
    for (auto& [cluster, clock] : b->clusters) {
        auto& known = merged->clusters[cluster];
        if (known.size() < clock.size()) known.resize(clock.size());
        raise(known.data(), clock.data(), (int)clock.size());
    }
    return merged;
}

ForeignPtr knowledge(Thread& thread) {
    Cluster& cluster = *thread.block->cluster;
    auto all = std::make_shared<Foreign>();
    if (thread.clock.foreign) *all = *thread.clock.foreign;
    all->clusters[cluster.index].assign(thread.clock.general,
                                        thread.clock.general + cluster.num_agents);
    return all;
}

void acquire_knowledge(Thread& thread, const ForeignPtr& known) {
    if (!known) return;
    Cluster& cluster = *thread.block->cluster;
    auto own = known->clusters.find(cluster.index);
    if (own != known->clusters.end())
        raise(thread.clock.general, own->second.data(), cluster.num_agents);
    thread.clock.foreign = merge(thread.clock.foreign, known);
    thread.warp->clock_version++;
}

bool knows(const Thread& thread, int cluster, int agent, Tick tick) {
    if (cluster == thread.block->cluster->index)
        return agent == thread.agent || thread.clock.general[agent] >= tick;
    if (!thread.clock.foreign) return false;
    auto found = thread.clock.foreign->clusters.find(cluster);
    return found != thread.clock.foreign->clusters.end() && found->second[(size_t)agent] >= tick;
}

}  // namespace emu

// Vector clocks: who is ordered after whom.
//
// Within a cluster every thread has a full clock over the cluster's agents (its threads, one per
// mbarrier for what TMA wrote, one per warp for its finished wgmma groups). An access is ordered
// after another if the accessor's clock has reached the tick of the other. Each thread has a second
// clock for the async proxy: up to which tick of each thread that thread's ordinary writes are also
// visible to TMA and wgmma (fence_proxy_async).
//
// Between clusters, order comes only from release and acquire on global memory. What a thread knows
// of other clusters is an immutable set of their clocks, shared between those who know the same.
#pragma once
#include <stdint.h>

#include <map>
#include <memory>
#include <vector>

namespace emu {

typedef uint32_t Tick;
struct Thread;

struct Foreign {
    std::map<int, std::vector<Tick>> clusters;  // by cluster index
};
typedef std::shared_ptr<const Foreign> ForeignPtr;

struct ThreadClock {
    Tick *general = nullptr, *async = nullptr;
    ForeignPtr foreign;
    ForeignPtr at_last_fence;  // what a relaxed atomic releases
    ForeignPtr unfenced;       // what relaxed atomics have seen, to be acquired by the next fence
};

// Where clocks change hands: arrivals put theirs in, completion publishes, waiters take out.
struct Handover {
    std::vector<Tick> gathered, gathered_async, published, published_async;
    ForeignPtr gathered_foreign, published_foreign;

    void reset(int num_agents);
    void complete();
};

void release(Thread& thread, Handover& handover);
void acquire(Thread& thread, const Handover& handover);

// This thread's knowledge, including its own cluster, as others would acquire it.
ForeignPtr knowledge(Thread& thread);
void acquire_knowledge(Thread& thread, const ForeignPtr& knowledge);
ForeignPtr merge(const ForeignPtr& a, const ForeignPtr& b);

// Whether `thread` is ordered after tick `tick` of `agent` in cluster `cluster`.
bool knows(const Thread& thread, int cluster, int agent, Tick tick);

void raise(Tick* clock, const Tick* other, int num_agents);
void lower(Tick* clock, const Tick* other, int num_agents);

}  // namespace emu

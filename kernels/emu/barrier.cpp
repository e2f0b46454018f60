// Barriers of a block: __syncthreads (id 0) and named barriers.
//
// Every thread that arrives releases its clock, those who sync acquire all of them. A thread that
// has exited does not count as arrived (assumption; on hardware such kernels are undefined anyway),
// so an early return before a barrier is a deadlock here.
#include "engine.h"

namespace emu {

namespace {

NamedBarrier& arrive(int id, int threads, Pc pc) {
    Thread& thread = *self();
    Block& block = *thread.block;
    if (id < 0 || id > 15) {
        report("barrier-count", pc, "barrier %d: ids are 0 to 15", id);
        abort_launch();
    }
    NamedBarrier& barrier = block.barriers[id];
    int padded = (block.num_threads + WARP - 1) / WARP * WARP;
    if (threads != block.num_threads && (threads % WARP || threads > padded || threads <= 0))
        report("barrier-count", pc, "barrier %d with %d threads in a block of %d", id, threads,
               block.num_threads);
    if (barrier.arrived && barrier.expected != threads)
        report("barrier-count", pc, "barrier %d is used with %d and with %d threads at once", id,
               barrier.expected, threads);
    barrier.expected = threads;
    barrier.arrived++;
    release(thread, barrier.handover);
    return barrier;
}

// Acquires on behalf of the waiters: the barrier may be used again before they run.
void complete(NamedBarrier& barrier) {
    made_progress();
    barrier.arrived = 0;
    if (launch->config.options.check_races) barrier.handover.complete();
    std::vector<Thread*> waiting;
    waiting.swap(barrier.waiting);
    for (Thread* thread : waiting) {
        acquire(*thread, barrier.handover);
        make_ready(thread);
    }
}

}  // namespace

void barrier_sync(int id, int threads) {
    Pc pc = CALLER;
    Thread& thread = *self();
    NamedBarrier& barrier = arrive(id, threads ? threads : thread.block->num_threads, pc);
    if (barrier.arrived < barrier.expected) {
        barrier.waiting.push_back(&thread);
        block_on(WaitFor::Barrier, (u32)id, pc);
        return;
    }
    complete(barrier);
    acquire(thread, barrier.handover);
    yield();
}

void barrier_arrive(int id, int threads) {
    NamedBarrier& barrier = arrive(id, threads, CALLER);
    if (barrier.arrived == barrier.expected) complete(barrier);
    if (launch->one_in(4)) yield();
}

}  // namespace emu

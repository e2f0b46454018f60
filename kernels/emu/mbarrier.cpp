// mbarrier: a phase ends when no arrival and no byte is missing; the next one expects the same
// number of arrivals. Waiting for parity p succeeds while the current phase has the other parity,
// so a waiter that misses two phases waits for ever (follows from the rule). TMA may deliver bytes
// before they are announced; the count then is below zero for a while. (High confidence.)
//
// Arrivals release, successful waits acquire. A completed phase also stands for the TMA writes that
// belong to it: agent `mbarrier`, tick = phase number.
#include "engine.h"

namespace emu {

Mbarrier* find_mbarrier(u32 shared, Pc pc, const char* what, Block** block) {
    Thread& thread = *self();
    u32 offset;
    if (!resolve_shared(shared, 8, 8, pc, what, block, &offset)) return nullptr;
    u16 index = (*block)->mbarrier_at[offset / 8];
    if (!index || !(*block)->mbarriers[index - 1u].live) {
        report("mbarrier-uninitialised", pc,
               "%s on shared+%u, which is not an initialised mbarrier", what, offset);
        return nullptr;
    }
    Mbarrier& mbarrier = (*block)->mbarriers[index - 1u];
    if (launch->config.options.check_races && mbarrier.init_agent != thread.agent &&
        thread.clock.general[mbarrier.init_agent] < mbarrier.init_tick)
        report("mbarrier-init-race", pc, "%s is not ordered after the mbarrier.init", what);
    return &mbarrier;
}

void mbarrier_init(uint32_t shared, uint32_t arrivals) {
    Pc pc = CALLER;
    Thread& thread = *self();
    Block* block;
    u32 offset;
    if (!resolve_shared(shared, 8, 8, pc, "mbarrier.init", &block, &offset)) return;
    if (!arrivals || arrivals >= 1u << 20)
        report("mbarrier-count", pc, "mbarrier.init with %u arrivals", arrivals);
    u16& index = block->mbarrier_at[offset / 8];
    if (index && block->mbarriers[index - 1u].live) {
        report("mbarrier-reinit", pc, "mbarrier.init of the live mbarrier at shared+%u", offset);
        return;
    }
    if (!index) {
        if (block->num_mbarriers == MAX_MBARRIERS) {
            report("emulator-limit", pc, "more than %d mbarriers in a block", MAX_MBARRIERS);
            return;
        }
        index = (u16)++block->num_mbarriers;
        block->mbarriers.emplace_back();
    }
    Mbarrier& m = block->mbarriers[index - 1u];
    if (launch->config.options.check_races) {
        shared_access(thread, *block, offset, 8, Access::Write, pc);
        mark_written(*block, offset, 8, pack_writer(WriterKind::MbarrierStorage, thread.agent, 0),
                     pc);
        m.init_tick = thread.clock.general[thread.agent];
    }
    int ranks = (int)block->cluster->blocks.size();
    m.live = true;
    m.offset = offset;
    m.count = arrivals;
    m.pending = arrivals;
    m.tx = 0;
    m.phase = 0;
    m.agent = ranks * block->num_threads + block->rank * MAX_MBARRIERS + index - 1;
    m.visible_to_async = false;
    m.init_agent = thread.agent;
    m.handover.reset(block->cluster->num_agents);
}

void mbarrier_invalidate(uint32_t shared) {
    Pc pc = CALLER;
    Block* block;
    Mbarrier* m = find_mbarrier(shared, pc, "mbarrier.inval", &block);
    if (!m) return;
    m->live = false;
    Thread& thread = *self();
    if (launch->config.options.check_races)
        mark_written(
            *block, m->offset, 8,
            pack_writer(WriterKind::Thread, thread.agent, thread.clock.general[thread.agent]), pc);
}

// Ends the phase if nothing is missing, and wakes its waiters.
static void end_phase(Block& block, Mbarrier& m) {
    if (m.pending != 0 || m.tx != 0) return;
    made_progress();
    m.phase++;
    m.pending = m.count;
    if (launch->config.options.check_races) {
        m.handover.complete();
        m.handover.published[(size_t)m.agent] = m.phase;
    }
    u32 index = (u32)(&m - block.mbarriers.data());
    for (int i = 0; i < block.num_threads; i++) {
        Thread& thread = block.threads[i];
        if (thread.state == State::Blocked && thread.wait_for == WaitFor::Mbarrier &&
            thread.wait_detail == index)
            make_ready(&thread);
    }
}

static void arrive(Block& block, Mbarrier& m, u32 count, Pc pc) {
    if ((i64)count > m.pending) {
        report("mbarrier-overarrive", pc,
               "all %u arrivals of phase %u at mbarrier shared+%u were "
               "already made",
               m.count, m.phase, m.offset);
        return;
    }
    release(*self(), m.handover);
    m.pending -= count;
    end_phase(block, m);
}

void mbarrier_arrive(uint32_t shared, uint32_t count) {
    Pc pc = CALLER;
    Block* block;
    if (Mbarrier* m = find_mbarrier(shared, pc, "mbarrier.arrive", &block))
        arrive(*block, *m, count, pc);
    if (launch->one_in(4)) yield();
}

void mbarrier_expect_tx(uint32_t shared, uint32_t bytes, bool arrives) {
    Pc pc = CALLER;
    Block* block;
    Mbarrier* m = find_mbarrier(shared, pc, "mbarrier.expect_tx", &block);
    if (!m) return;
    m->tx += bytes;
    if (m->tx >= 1 << 20) report("mbarrier-tx", pc, "more than 2^20 - 1 bytes are expected");
    if (arrives) arrive(*block, *m, 1, pc);
    if (launch->one_in(4)) yield();
}

void complete_tx(Block& block, Mbarrier& m, i64 bytes) {
    m.tx -= bytes;
    end_phase(block, m);
}

bool mbarrier_try_wait(uint32_t shared, uint32_t parity) {
    Pc pc = CALLER;
    Thread& thread = *self();
    Block* block;
    Mbarrier* m = find_mbarrier(shared, pc, "mbarrier.try_wait", &block);
    if (!m) return true;
    if (parity > 1) report("mbarrier-parity", pc, "parity %u", parity);
    u32 index = (u32)(m - block->mbarriers.data());
    if ((m->phase & 1) == (parity & 1)) {
        if (thread.false_try_waits < 2 && launch->one_in(8)) {
            thread.false_try_waits++;  // the hardware may give up waiting too
            yield();
            return false;
        }
        while ((block->mbarriers[index].phase & 1) == (parity & 1)) {
            thread.wait_parity = parity;
            block_on(WaitFor::Mbarrier, index, pc);
        }
    }
    thread.false_try_waits = 0;
    acquire(thread, block->mbarriers[index].handover);
    return true;
}

void fence_mbarrier_init() {
    Thread& thread = *self();
    for (Mbarrier& m : thread.block->mbarriers)
        if (m.init_agent == thread.agent) m.visible_to_async = true;
}

void fence_proxy_async() {
    Thread& thread = *self();
    fence_mbarrier_init();
    if (!launch->config.options.check_races) return;
    ThreadClock& clock = thread.clock;
    if (launch->config.options.writer_fences)
        clock.async[thread.agent] = clock.general[thread.agent];
    else raise(clock.async, clock.general, thread.block->cluster->num_agents);
    clock.general[thread.agent]++;
    thread.warp->clock_version++;
}

// Ordering of global memory between the proxies is not modelled: TMA accesses to it are checked
// like ordinary ones.
void fence_proxy_async_global() {}

}  // namespace emu

// Global loads and stores with a special meaning, atomics and __threadfence.
//
// Release and acquire carry clocks through the address they act on. A relaxed atomic releases what
// the thread's last fence covered, and what it sees is acquired by the thread's next fence: C++'s
// rules for fences, which CUDA's memory model follows (high confidence). The values themselves are
// sequentially consistent here, so a fence that is missing is found by the clocks, not by the
// values.
#include <string.h>

#include "engine.h"
#include "global_memory.h"

namespace emu {

namespace {

// Checks an access by special instruction; an illegal address ends the launch.
void access(const void* pointer, u32 bytes, GlobalAccess kind, Pc pc) {
    Thread& thread = *self();
    if (!in_device_arena(pointer)) {
        report("wild", pc, "access to an address that is not device memory");
        abort_launch();
    }
    if (!global_access(thread, pointer, bytes, kind, pc)) abort_launch();
}

bool checks() { return launch->config.options.check_races; }

// What was released at an address, continued by read-modify-writes and replaced by stores.
ForeignPtr& released_at(const void* pointer) { return launch->released[(uintptr_t)pointer]; }

void publish(const void* pointer, bool replace) {
    if (!checks()) return;
    Thread& thread = *self();
    ForeignPtr& released = released_at(pointer);
    ForeignPtr own = knowledge(thread);
    released = replace ? own : merge(released, own);
    thread.clock.general[thread.agent]++;
}

u64 apply(Atomic operation, u64 before, u64 value, u64 compare) {
    switch (operation) {
    case Atomic::Add: return before + value;
    case Atomic::Min: return value < before ? value : before;
    case Atomic::Max: return value > before ? value : before;
    case Atomic::Or: return before | value;
    case Atomic::Exchange: return value;
    case Atomic::CompareExchange: return before == compare ? value : before;
    }
    return before;
}

}  // namespace

void load_constant(void* value, const void* global, uint32_t bytes) {
    access(global, bytes, GlobalAccess::ReadConstant, CALLER);
    memcpy(value, global, bytes);
}

void store_global(void* global, const void* value, uint32_t bytes) {
    access(global, bytes, GlobalAccess::Write, CALLER);
    memcpy(global, value, bytes);
}

uint32_t load_acquire(const uint32_t* flag) {
    Pc pc = CALLER;
    yield();
    count_spin(pc);
    access(flag, 4, GlobalAccess::AtomicRead, pc);
    if (checks()) acquire_knowledge(*self(), released_at(flag));
    return *flag;
}

void store_release(uint32_t* flag, uint32_t value) {
    access(flag, 4, GlobalAccess::Atomic, CALLER);
    publish(flag, true);
    made_progress();
    *flag = value;
    yield();
}

void add_release(uint32_t* counter, uint32_t value) {
    access(counter, 4, GlobalAccess::Atomic, CALLER);
    publish(counter, false);
    made_progress();
    *counter += value;
    yield();
}

uint32_t add_acquire_release(uint32_t* counter, uint32_t value) {
    access(counter, 4, GlobalAccess::Atomic, CALLER);
    if (checks()) acquire_knowledge(*self(), released_at(counter));
    publish(counter, false);
    made_progress();
    uint32_t before = *counter;
    *counter = before + value;
    yield();
    return before;
}

uint64_t atomic(void* target, int bytes, Atomic operation, uint64_t value, uint64_t compare) {
    Pc pc = CALLER;
    Thread& thread = *self();
    yield();
    size_t offset = (size_t)((u8*)target - thread.block->shared);
    if (offset < SHARED_CAPACITY) {
        shared_access(thread, *thread.block, (u32)offset, (u32)bytes, Access::Atomic, pc);
    } else {
        access(target, (u32)bytes, GlobalAccess::Atomic, pc);
        if (checks()) {
            ForeignPtr& released = released_at(target);
            thread.clock.unfenced = merge(thread.clock.unfenced, released);
            released = merge(released, thread.clock.at_last_fence);
        }
    }
    u64 before = 0;
    memcpy(&before, target, (size_t)bytes);
    u64 after = apply(operation, before, value, compare);
    if (after == before) count_spin(pc);
    else made_progress();
    memcpy(target, &after, (size_t)bytes);
    return before;
}

void thread_fence() {
    if (!checks()) return;
    Thread& thread = *self();
    acquire_knowledge(thread, thread.clock.unfenced);
    thread.clock.unfenced = nullptr;
    thread.clock.at_last_fence = knowledge(thread);
    thread.clock.general[thread.agent]++;
}

}  // namespace emu

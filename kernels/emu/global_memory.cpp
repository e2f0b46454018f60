// The device arena and the race check on global memory.
//
// Within a launch an access is ordered by the clocks of clock.h: barriers inside a block, release
// and acquire between blocks. Two blocks that write the same bytes, or read what the other wrote,
// without such an order are reported: that is the proof that results do not depend on the order of
// blocks. Granularity is 2 bytes with a mask, so neighbouring bytes never give a false alarm.
#include "global_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>

namespace emu {

namespace {

constexpr size_t RED_ZONE = 256, FIRST = 4096;

constexpr Tick OPEN = ~(Tick)0;  // of a write that is not complete

// Who touched 2 bytes last in the current launch.
struct Touch {
    u32 operation;
    int write_cluster, read_cluster;  // -1: nobody
    u16 write_agent, read_agent;
    Tick write_tick, read_tick;
    u8 write_bytes, read_bytes;  // bit per byte
    bool write_atomic, read_atomic;
};

struct Arena {
    u8* base = nullptr;
    size_t capacity = 1ull << 30, top = FIRST;
    u8* valid = nullptr;            // per 16 bytes: how many of them are allocated
    Touch* touches = nullptr;       // per 2 bytes
    std::map<size_t, size_t> live;  // offset, bytes
};
Arena& arena() {
    static auto* a = new Arena();
    return *a;
}

void* reserve(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr,
                "hooke emulator: cannot reserve %zu bytes of address space; "
                "set HOOKE_EMU_MEMORY_MB lower\n",
                bytes);
        abort();
    }
    return memory;
}

void open_arena(Arena& a) {
    if (a.base) return;
    a.base = (u8*)reserve(a.capacity);
    a.valid = (u8*)reserve(a.capacity / 16);
    a.touches = (Touch*)reserve(a.capacity / 2 * sizeof(Touch));
}

// The first gap that fits, once the end of the arena has been reached.
size_t find_gap(const Arena& a, size_t bytes) {
    size_t at = FIRST;
    for (auto& [offset, size] : a.live) {
        if (offset >= at + bytes + RED_ZONE) break;
        at = (offset + size + 2 * RED_ZONE - 1) & ~(RED_ZONE - 1);
    }
    return at;
}

}  // namespace

void set_device_memory(size_t bytes) {
    if (!arena().base) arena().capacity = bytes;
}

size_t device_memory_bytes() { return arena().capacity; }

void* device_alloc(size_t bytes) {
    Arena& a = arena();
    open_arena(a);
    if (bytes > a.capacity) return nullptr;
    size_t at = (a.top + RED_ZONE - 1) & ~(RED_ZONE - 1);
    if (at + bytes + 2 * RED_ZONE > a.capacity) {
        at = find_gap(a, bytes);
        if (at + bytes + 2 * RED_ZONE > a.capacity) return nullptr;
    } else {
        a.top = at + bytes + RED_ZONE;
    }
    memset(a.base + at, 0xff, bytes);
    memset(a.valid + at / 16, 16, bytes / 16);
    if (bytes % 16) a.valid[(at + bytes) / 16] = (u8)(bytes % 16);
    a.live[at] = bytes;
    return a.base + at;
}

void device_free(void* pointer) {
    Arena& a = arena();
    auto found = a.live.find(device_offset(pointer));
    if (found == a.live.end()) return;
    memset(a.valid + found->first / 16, 0, (found->second + 15) / 16);
    a.live.erase(found);
}

void device_reset() {
    Arena& a = arena();
    if (!a.base) return;
    memset(a.valid, 0, a.top / 16 + 1);
    a.live.clear();
    a.top = FIRST;
}

size_t device_alloc_size(const void* pointer) {
    Arena& a = arena();
    auto found = a.live.find(device_offset(pointer));
    return !a.base || found == a.live.end() ? 0 : found->second;
}

size_t live_allocations(size_t* bytes) {
    size_t total = 0;
    for (auto& [offset, size] : arena().live) total += size;
    if (bytes) *bytes = total;
    return arena().live.size();
}

size_t device_offset(const void* pointer) { return (size_t)((const u8*)pointer - arena().base); }

bool in_device_arena(const void* pointer) {
    return arena().base && device_offset(pointer) < arena().capacity;
}

bool is_device_range(const void* pointer, size_t bytes) {
    Arena& a = arena();
    size_t at = device_offset(pointer);
    if (!a.base || at >= a.capacity || bytes > a.capacity - at) return false;
    while (bytes) {
        size_t within = at % 16, part = std::min(bytes, 16 - within);
        if (a.valid[at / 16] < within + part) return false;
        at += part;
        bytes -= part;
    }
    return true;
}

namespace {

const char* describe(GlobalAccess access) {
    switch (access) {
    case GlobalAccess::Write: return "write";
    case GlobalAccess::Atomic: return "atomic";
    default: return "read";
    }
}

// "thread 5 of block (2,0,0)", for an agent of a cluster.
std::string describe_agent(int cluster, int agent) {
    const Dim3 &grid = launch->config.grid, &dims = launch->config.cluster;
    int per_block = launch->num_threads;
    if (dims.count() > 1)
        return "thread " + std::to_string(agent % per_block) + " of block " +
               std::to_string(agent / per_block) + " of cluster " + std::to_string(cluster);
    char text[80];
    u32 c = (u32)cluster;
    snprintf(text, sizeof text, "thread %d of block (%u,%u,%u)", agent, c % grid.x,
             c / grid.x % grid.y, c / grid.x / grid.y);
    return text;
}

bool opens(GlobalAccess access) {
    return access == GlobalAccess::OpenWrite || access == GlobalAccess::OpenAtomic;
}

bool writes(GlobalAccess access) {
    return access == GlobalAccess::Write || access == GlobalAccess::Atomic || opens(access);
}

void check_race(Thread& thread, Touch& touch, u8 mask, size_t offset, GlobalAccess access, Pc pc) {
    bool is_write = writes(access), is_open = opens(access);
    bool is_atomic = access == GlobalAccess::Atomic || access == GlobalAccess::AtomicRead ||
                     access == GlobalAccess::OpenAtomic;
    int cluster = thread.block->cluster->index;
    Tick now = thread.clock.general[thread.agent];
    if (touch.write_cluster >= 0 && (touch.write_bytes & mask)) {
        if (access == GlobalAccess::ReadConstant)
            report("constant-stale", pc,
                   "read-only load of arena+0x%zx, which this kernel writes "
                   "(%s)",
                   offset, describe_agent(touch.write_cluster, touch.write_agent).c_str());
        else if (!(is_atomic && touch.write_atomic) &&
                 (touch.write_tick == OPEN ||
                  !knows(thread, touch.write_cluster, touch.write_agent, touch.write_tick)))
            report(touch.write_cluster == cluster ? "race-global" : "race-blocks", pc,
                   "global %s of arena+0x%zx is not ordered after the write by %s",
                   describe(access), offset,
                   describe_agent(touch.write_cluster, touch.write_agent).c_str());
    }
    if (is_write && touch.read_cluster >= 0 && (touch.read_bytes & mask) &&
        !(is_atomic && touch.read_atomic) &&
        !knows(thread, touch.read_cluster, touch.read_agent, touch.read_tick))
        report(touch.read_cluster == cluster ? "race-global" : "race-blocks", pc,
               "global %s of arena+0x%zx is not ordered after the read by %s", describe(access),
               offset, describe_agent(touch.read_cluster, touch.read_agent).c_str());
    if (is_write) {
        touch.write_cluster = cluster;
        touch.write_agent = (u16)thread.agent;
        touch.write_tick = is_open ? OPEN : now;
        touch.write_bytes = mask;
        touch.write_atomic = is_atomic;
        touch.read_cluster = -1;
    } else {
        touch.read_cluster = cluster;
        touch.read_agent = (u16)thread.agent;
        touch.read_tick = now;
        touch.read_bytes = mask;
        touch.read_atomic = is_atomic;
    }
}

}  // namespace

bool global_access(Thread& thread, const void* pointer, u32 bytes, GlobalAccess access, Pc pc) {
    size_t offset = device_offset(pointer);
    if (!is_device_range(pointer, bytes)) {
        report("global-oob", pc, "%s of %u bytes at arena+0x%zx, outside any live allocation",
               describe(access), bytes, offset);
        return false;
    }
    bool natural = bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16;
    if (natural && offset % bytes) {
        report("align", pc, "%s of %u bytes at arena+0x%zx is misaligned", describe(access), bytes,
               offset);
        return false;
    }
    if (!launch->config.options.check_races) return true;
    touch_operation(pointer, bytes, writes(access), pc);
    for (size_t cell = offset / 2; cell <= (offset + bytes - 1) / 2; cell++) {
        Touch& touch = arena().touches[cell];
        if (touch.operation != current_operation()) {
            touch.operation = current_operation();
            touch.write_cluster = touch.read_cluster = -1;
        }
        bool low = cell * 2 >= offset, high = cell * 2 + 1 < offset + bytes;
        check_race(thread, touch, (u8)(low | high << 1), cell * 2, access, pc);
    }
    return true;
}

void settle_write(Thread& thread, const void* pointer, u32 bytes) {
    if (!launch->config.options.check_races) return;
    size_t offset = device_offset(pointer);
    int cluster = thread.block->cluster->index;
    for (size_t cell = offset / 2; cell <= (offset + bytes - 1) / 2; cell++) {
        Touch& touch = arena().touches[cell];
        if (touch.operation == current_operation() && touch.write_tick == OPEN &&
            touch.write_cluster == cluster && touch.write_agent == thread.agent)
            touch.write_tick = thread.clock.general[thread.agent];
    }
}

}  // namespace emu

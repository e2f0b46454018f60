// Order between the operations of streams: two operations may touch the same device memory (one of
// them writing) only if an event, a synchronisation or their stream orders them. Independent of the
// order in which the driver happens to run them.
#include <sys/mman.h>

#include "global_memory.h"

namespace emu {

namespace {

struct Operation {
    u32 stream, position;
    const char* what;
};

// Last writer and last reader of 4 bytes, as indices of operations.
struct LastUse {
    u32 writer, reader;
};

struct StreamOrder {
    std::vector<Operation> operations{Operation{0, 0, "nothing"}};
    std::vector<u32> clock;  // of the current operation
    LastUse* uses = nullptr;
    void (*callback)(const StreamRace&) = nullptr;
    bool on = true;
};
StreamOrder& state() {
    static auto* s = new StreamOrder();
    return *s;
}

bool is_before(u32 operation) {
    const Operation& o = state().operations[operation];
    return o.stream < state().clock.size() && state().clock[o.stream] >= o.position;
}

bool race(u32 other, size_t offset, Pc pc, bool write, bool other_wrote) {
    StreamOrder& s = state();
    if (s.callback)
        s.callback({s.operations.back().what, s.operations[other].what, other, offset, pc, write,
                    other_wrote});
    return false;
}

}  // namespace

void on_stream_race(void (*callback)(const StreamRace&)) { state().callback = callback; }

void check_stream_order(bool on) { state().on = on; }

u32 current_operation() { return (u32)state().operations.size() - 1; }

void begin_operation(u32 stream, u32 position, const char* what, const std::vector<u32>& clock) {
    state().operations.push_back({stream, position, what});
    state().clock = clock;
}

bool touch_operation(const void* pointer, size_t bytes, bool write, Pc pc) {
    StreamOrder& s = state();
    if (!s.on || !bytes || !in_device_arena(pointer)) return true;
    if (!s.uses)
        s.uses = (LastUse*)mmap(nullptr, device_memory_bytes() / 4 * sizeof(LastUse),
                                PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                                -1, 0);
    size_t offset = device_offset(pointer);
    u32 current = current_operation();
    bool ordered = true;
    for (size_t i = offset / 4; i <= (offset + bytes - 1) / 4; i++) {
        LastUse& use = s.uses[i];
        if (use.writer == current || (!write && use.reader == current)) continue;
        if (ordered && use.writer && !is_before(use.writer))
            ordered = race(use.writer, i * 4, pc, write, true);
        else if (ordered && write && use.reader && use.reader != current && !is_before(use.reader))
            ordered = race(use.reader, i * 4, pc, write, false);
        if (write) {
            use.writer = current;
            use.reader = 0;
        } else {
            use.reader = current;
        }
    }
    return ordered;
}

}  // namespace emu

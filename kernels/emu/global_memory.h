// Device memory: one arena with red zones, validity per byte, and who touched what.
#pragma once
#include <stddef.h>

#include "engine.h"

namespace emu {

// ---- allocation; used by the driver -------------------------------------------------------------
void set_device_memory(size_t bytes);  // before the first allocation; default 1 GiB
size_t device_memory_bytes();
// 256-byte aligned, filled with 0xff (NaN); null when the arena is full. Freed memory is reused
// last.
void* device_alloc(size_t bytes);
void device_free(void* pointer);
void device_reset();
size_t device_alloc_size(const void* pointer);  // 0: not a live allocation
size_t live_allocations(size_t* bytes);
bool is_device_range(const void* pointer, size_t bytes);  // inside one live allocation or several
size_t device_offset(const void* pointer);                // for reports
bool in_device_arena(const void* pointer);

// ---- accesses of the running kernel -------------------------------------------------------------
// The Open kinds are writes by the TMA engine that happen some time before settle_write; until then
// nobody, not even the issuing thread, is ordered after them.
enum class GlobalAccess : u8 {
    Read,
    ReadConstant,
    Write,
    Atomic,
    AtomicRead,
    OpenWrite,
    OpenAtomic
};
// Checks one access; false (and the launch is doomed) if the address is illegal.
bool global_access(Thread& thread, const void* pointer, u32 bytes, GlobalAccess access, Pc pc);
void settle_write(Thread& thread, const void* pointer, u32 bytes);

// ---- order between stream operations; see stream_order.cpp --------------------------------------
// An operation of a stream starts: a kernel, copy, memset, allocation or free, ordered after those
// its clock covers (per stream, how many operations).
void begin_operation(u32 stream, u32 position, const char* what, const std::vector<u32>& clock);
// It touches memory. Reports through the callback and returns false if that is not ordered.
bool touch_operation(const void* pointer, size_t bytes, bool write, Pc pc);
struct StreamRace {
    const char *what, *other;
    u32 other_operation;
    size_t offset;
    Pc pc;
    bool write, other_wrote;
};
void on_stream_race(void (*callback)(const StreamRace&));
void check_stream_order(bool on);
u32 current_operation();

}  // namespace emu

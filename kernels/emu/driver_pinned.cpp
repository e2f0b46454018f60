// Pinned memory, and the guard on it: while a queued copy uses pages, reading them is allowed if
// they are the copy's source, nothing is if they are its target. A touch becomes a report.
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "driver.h"

namespace emu {

namespace {
constexpr size_t PAGE = 4096;
struct sigaction previous_handler;
volatile int guard_hits = 0;
char guard_message[200];

// Only async-signal-safe work, except for reading the map of pinned buffers, which cannot change
// meanwhile: the thread that touches guarded memory is not inside the driver.
void on_fault(int, siginfo_t* info, void*) {
    auto address = (uintptr_t)info->si_addr;
    for (auto& [begin, bytes] : driver().pinned) {
        if (address < begin || address >= begin + round_to_pages(bytes)) continue;
        mprotect((void*)begin, round_to_pages(bytes), PROT_READ | PROT_WRITE);
        snprintf(guard_message, sizeof guard_message,
                 "[host-race] the program touches byte %zu of a pinned buffer that a queued copy "
                 "still uses: synchronise first",
                 (size_t)(address - begin));
        guard_hits = guard_hits + 1;
        return;
    }
    sigaction(SIGSEGV, &previous_handler, nullptr);  // not ours: fault again under the old handler
}
}  // namespace

size_t round_to_pages(size_t bytes) { return (bytes + PAGE - 1) & ~(PAGE - 1); }

void install_page_guard() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &previous_handler);
}

void report_guard_hits() {
    if (!guard_hits) return;
    guard_hits = 0;
    fail(CUDA_ERROR_LAUNCH_FAILED, guard_message);
}

static std::map<uintptr_t, size_t>::iterator buffer_of(uintptr_t begin, uintptr_t end) {
    auto& pinned = driver().pinned;
    auto after = pinned.upper_bound(begin);
    if (after == pinned.begin()) return pinned.end();
    auto buffer = std::prev(after);
    return end <= buffer->first + buffer->second ? buffer : pinned.end();
}

bool is_pinned(const void* pointer, size_t bytes) {
    return buffer_of((uintptr_t)pointer, (uintptr_t)pointer + bytes) != driver().pinned.end();
}

// Only pages that lie wholly in a copy are protected: neighbours may share the others.
void update_page_guard(uintptr_t begin, uintptr_t end) {
    Driver& d = driver();
    if (!d.guard || begin == end) return;
    auto buffer = buffer_of(begin, end);
    if (buffer == d.pinned.end()) return;
    uintptr_t first = buffer->first, last = first + buffer->second;
    std::vector<int> protection(round_to_pages(last - first) / PAGE, PROT_READ | PROT_WRITE);
    for (auto& stream : d.streams)
        for (auto& o : stream->queue) {
            if (o.host_begin >= o.host_end || o.host_begin < first || o.host_end > last) continue;
            for (size_t page = round_to_pages(o.host_begin - first) / PAGE;
                 page < protection.size(); page++) {
                uintptr_t page_end = std::min(last - first, (page + 1) * PAGE);
                if (o.host_end - first < page_end) break;
                if (o.writes_host) protection[page] = PROT_NONE;
                else if (protection[page] != PROT_NONE) protection[page] = PROT_READ;
            }
        }
    for (size_t page = 0; page < protection.size(); page++)
        mprotect((void*)(first + page * PAGE), PAGE, protection[page]);
}

void lift_page_guard(uintptr_t begin, uintptr_t end) {
    if (!driver().guard || begin == end || buffer_of(begin, end) == driver().pinned.end()) return;
    uintptr_t first = begin & ~(PAGE - 1);
    mprotect((void*)first, round_to_pages(end - first), PROT_READ | PROT_WRITE);
}

}  // namespace emu

using namespace emu;

EXPORT CUresult cuMemHostAlloc(void** out, size_t bytes, unsigned) {
    ENTER(Context);
    REQUIRE(bytes, CUDA_ERROR_INVALID_VALUE);
    void* memory = mmap(nullptr, round_to_pages(bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED, CUDA_ERROR_OUT_OF_MEMORY);
    memset(memory, 0xff, bytes);
    driver().pinned[(uintptr_t)memory] = bytes;
    *out = memory;
    return CUDA_SUCCESS;
}

// A real driver may wait for the copies here; nothing promises it.
EXPORT CUresult cuMemFreeHost(void* pointer) {
    ENTER(Context);
    Driver& d = driver();
    auto found = d.pinned.find((uintptr_t)pointer);
    REQUIRE(found != d.pinned.end(), CUDA_ERROR_INVALID_VALUE);
    uintptr_t begin = found->first, end = begin + found->second;
    for (auto& stream : d.streams)
        for (auto& o : stream->queue)
            if (o.host_begin < end && o.host_end > begin) {
                fail(CUDA_ERROR_INVALID_VALUE,
                     "[host-free] pinned memory is freed while a " + o.what + " still uses it");
                break;
            }
    drain_all();
    munmap(pointer, round_to_pages(end - begin));
    d.pinned.erase(begin);
    return CUDA_SUCCESS;
}

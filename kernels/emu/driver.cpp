// State of the stand-in driver, and what happens at the start of every call.
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "global_memory.h"

namespace emu {

thread_local CUcontext current_context = nullptr;

u32 Driver::below(u32 n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (u32)((random_state * 0x2545F4914F6CDD1Dull >> 32) * n >> 32);
}

namespace {

bool env_is(const char* name, const char* value) {
    const char* set = getenv(name);
    return set && !strcmp(set, value);
}

void report_stream_race(const StreamRace& race) {
    Driver& d = driver();
    std::string place = d.running + "|" + race.other + "|" + std::to_string(race.pc);
    if (!d.races_seen.insert(place).second) return;
    char text[400];
    snprintf(text, sizeof text,
             "[stream-race] %s %s arena+0x%zx%s%s, %s by %s (operation %u), and no event or "
             "synchronisation orders the two",
             d.running.c_str(), race.write ? "writes" : "reads", race.offset, race.pc ? " at " : "",
             race.pc ? source_line(race.pc).c_str() : "", race.other_wrote ? "written" : "read",
             race.other, race.other_operation);
    fail(CUDA_ERROR_LAUNCH_FAILED, text);
}

void print_leaks() {
    Driver& d = driver();
    size_t streams = 0, queued = 0;
    for (auto& stream : d.streams) {
        streams += stream->id && !stream->destroyed;
        queued += stream->queue.size();
    }
    fprintf(stderr,
            "hooke emulator at exit: contexts %d allocations %zu pinned %zu events %zu streams %zu "
            "modules %zu graphs %zu queued %zu (%llu launches, %llu calls)\n",
            d.context_references, live_allocations(nullptr), d.pinned.size(), d.events.size(),
            streams, d.modules.size(), d.graphs.size(), queued, (unsigned long long)d.launches,
            (unsigned long long)d.calls);
}

void set_seed(Driver& d, u64 seed) {
    d.seed = seed;
    d.random_state = seed * 0x9E3779B97F4A7C15ull + 1;
    d.order = (Order)(seed % 3);
}

void read_environment(Driver& d) {
    const char* seed = getenv("HOOKE_EMU_SEED");
    set_seed(d, seed ? strtoull(seed, nullptr, 10) : 1);
    if (env_is("HOOKE_EMU_ORDER", "now")) d.order = Order::Now;
    if (env_is("HOOKE_EMU_ORDER", "late")) d.order = Order::Late;
    if (env_is("HOOKE_EMU_ORDER", "random")) d.order = Order::Random;
    if (const char* fail_at = getenv("HOOKE_EMU_FAIL")) {
        unsigned long long call = 0;
        sscanf(fail_at, "%llu:%d", &call, &d.fail_code);
        d.fail_at = call;
    }
    if (const char* cc = getenv("HOOKE_EMU_CC")) {
        d.major = atoi(cc) / 10;
        d.minor = atoi(cc) % 10;
    }
    if (const char* mb = getenv("HOOKE_EMU_MEMORY_MB")) set_device_memory((size_t)atoll(mb) << 20);
    d.checks = !env_is("HOOKE_EMU_CHECKS", "0");
    d.guard = !env_is("HOOKE_EMU_GUARD", "0");
    d.quiet = env_is("HOOKE_EMU_QUIET", "1");
    d.truncate = env_is("HOOKE_EMU_TRUNCATE", "1");
    check_stream_order(d.checks);
    if (env_is("HOOKE_EMU_LEAKS", "1")) atexit(print_leaks);
}

}  // namespace

// Never destroyed: calls may come from other libraries' destructors.
Driver& driver() {
    static Driver* d = [] {
        auto* created = new Driver();
        created->streams.push_back(std::make_unique<Stream>(Stream{0}));
        read_environment(*created);
        on_stream_race(report_stream_race);
        return created;
    }();
    return *d;
}

CUresult enter(const char* call, Needs needs) {
    Driver& d = driver();
    static bool guarded = false;
    if (!guarded && d.guard) install_page_guard();
    guarded = true;
    d.calls++;
    report_guard_hits();
    if (d.fail_at && d.calls == d.fail_at) {
        d.failed_call = call;
        return (CUresult)d.fail_code;
    }
    if (needs != Needs::Nothing && !d.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (needs == Needs::Context && !current_context) return CUDA_ERROR_INVALID_CONTEXT;
    return needs == Needs::Context ? d.sticky : CUDA_SUCCESS;
}

void fail(CUresult code, const std::string& text) {
    Driver& d = driver();
    if (trial.on) {
        trial.findings += text + "\n";
        return;
    }
    d.reports.push_back(text);
    if (!d.quiet) fprintf(stderr, "hooke emulator: %s\n", text.c_str());
    if (!d.sticky) d.sticky = code;
}

}  // namespace emu

// ---- for tests; not part of CUDA ----------------------------------------------------------------

using namespace emu;

EXPORT void hooke_emu_seed(u64 seed) {
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);
    Driver& d = driver();
    d.seed = seed;
    d.random_state = seed * 0x9E3779B97F4A7C15ull + 1;
    d.order = (Order)(seed % 3);
    d.launches = 0;
}

// The n-th call from now on fails; 0: none.
EXPORT void hooke_emu_fail_at(u64 call, int code) {
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);
    Driver& d = driver();
    d.calls = 0;
    d.fail_at = call;
    d.fail_code = code;
    d.failed_call.clear();
}

EXPORT u64 hooke_emu_calls(void) { return driver().calls; }
EXPORT const char* hooke_emu_failed_call(void) { return driver().failed_call.c_str(); }

EXPORT const char* hooke_emu_reports(void) {
    static std::string text;
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);
    text.clear();
    for (auto& report : driver().reports) text += report + "\n";
    return text.c_str();
}

// contexts, allocations, pinned buffers, events, streams, modules, graphs
EXPORT void hooke_emu_live(u64* counts) {
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);
    Driver& d = driver();
    counts[0] = (u64)d.context_references;
    counts[1] = live_allocations(nullptr);
    counts[2] = d.pinned.size();
    counts[3] = d.events.size();
    counts[4] = 0;
    for (auto& stream : d.streams) counts[4] += stream->id && !stream->destroyed;
    counts[5] = d.modules.size();
    counts[6] = d.graphs.size();
}

// Forgets everything that is alive, as a new process would; for tests that make calls fail.
EXPORT void hooke_emu_forget(void) {
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);
    Driver& d = driver();
    d.fail_at = 0;
    d.sticky = CUDA_SUCCESS;
    drain_all();
    d.modules.clear();
    d.functions.clear();
    d.events.clear();
    d.graphs.clear();
    for (auto& [begin, bytes] : d.pinned) lift_page_guard(begin, begin + bytes);
    d.pinned.clear();
    for (auto& stream : d.streams) stream->destroyed |= stream->id != 0;
    d.context_references = 0;
    d.sticky = CUDA_SUCCESS;
    d.reports.clear();
    d.races_seen.clear();
    device_reset();
}

EXPORT void hooke_emu_trial_begin(u64 seed) {
    trial.on = true;
    trial.seed = seed;
    trial.findings.clear();
}

// What was found since trial_begin, one finding a line.
EXPORT const char* hooke_emu_trial_end(void) {
    trial.on = false;
    return trial.findings.c_str();
}

// The stand-in libcuda.so: the CUDA driver API on top of the emulator.
//
// The real cudarc loads it like a driver, so the product's own launches, copies, streams and error
// paths are what is tested. Work on streams runs as late and in as odd an order as is legal. The
// toolkit's cuda.h is included, so g++ compares every signature with NVIDIA's.
//
// Environment (read once; `hooke_emu_*` functions change the same things in-process):
//   HOOKE_EMU_SEED=n          seed of everything random (default 1)
//   HOOKE_EMU_ORDER=now|late|random   when queued work runs (default: by seed)
//   HOOKE_EMU_FAIL=n:code     the n-th driver call fails with a CUresult
//   HOOKE_EMU_LEAKS=1         prints live handles at exit
//   HOOKE_EMU_CC=80           pretends another compute capability (default 90)
//   HOOKE_EMU_NO_DEVICE=1, HOOKE_EMU_DRIVER_VERSION=n, HOOKE_EMU_NO_POOLS=1, HOOKE_EMU_MEMORY_MB=n
//   HOOKE_EMU_CHECKS=0        no race checks; HOOKE_EMU_GUARD=0: no page guard of pinned memory
//   HOOKE_EMU_TRUNCATE=1      tensor cores truncate; HOOKE_EMU_QUIET=1: no reports on stderr
#pragma once
#include <cuda.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine.h"
#include "kernel_info.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace emu {

typedef std::vector<u32>
    StreamClock;  // per stream: how many of its operations are known to be done

constexpr int SHARED_DEFAULT = 48 * 1024, SHARED_OPT_IN = 227 * 1024, REGISTERS = 65536;

// ---- what handles point to ----------------------------------------------------------------------

struct Event {
    u64 recorded = 0, done = 0;  // how often
    std::map<u64, StreamClock> clocks;
    double seconds = 0;
    bool timing = false;
};
typedef std::shared_ptr<Event> EventPtr;
struct EventHandle {
    EventPtr event;
};

enum class OperationKind { Run, Record, Wait };
struct Operation {
    OperationKind kind;
    std::string what;
    std::function<void()> run;
    EventPtr event;
    u64 ticket = 0;  // which recording of the event
    StreamClock host;
    u32 position = 0;
    uintptr_t host_begin = 0, host_end = 0;  // pinned memory it uses
    bool writes_host = false;
};

struct Stream {
    u32 id;
    bool destroyed = false, capturing = false;
    std::deque<Operation> queue;
    std::vector<Operation> captured;
    StreamClock clock;
    u32 submitted = 0;
};

struct Parameter {
    u32 bytes, offset;
};
struct Function {
    std::string name;
    const KernelInfo* kernel = nullptr;
    u32 max_threads = 1024, registers = 0, local_bytes = 0, static_shared = 0;
    std::vector<Parameter> parameters;
    int dynamic_shared_limit = SHARED_DEFAULT, carveout = -1;
    bool non_portable_cluster = false;
};
struct Module {
    std::map<std::string, std::unique_ptr<Function>> functions;
    bool unchecked = false;  // PTX or a compressed image: only g++'s view is known
};
struct Graph {
    std::vector<Operation> operations;
};

enum class Order { Now, Late, Random };

struct Driver {
    std::recursive_mutex mutex;
    bool initialised = false;
    int context_references = 0;
    std::vector<std::unique_ptr<Stream>> streams;  // [0] is the default stream
    std::set<void*> modules, events, functions, graphs;
    std::map<uintptr_t, size_t> pinned;
    StreamClock host_clock;
    // findings
    CUresult sticky = CUDA_SUCCESS;
    std::vector<std::string> reports;
    std::set<std::string> races_seen;
    std::string running;  // what the current operation is
    // randomness
    u64 seed = 1, random_state = 1, launches = 0;
    Order order = Order::Late;
    // fault injection
    u64 calls = 0, fail_at = 0;
    int fail_code = 0;
    std::string failed_call;
    // the device
    int major = 9, minor = 0;
    bool checks = true, guard = true, quiet = false, truncate = false;

    u32 below(u32 n);
};
Driver& driver();
extern thread_local CUcontext current_context;

// ---- every entry point --------------------------------------------------------------------------

enum class Needs { Nothing, Init, Context };
// Counts the call, injects the fault, and checks what the call needs. A failed kernel poisons the
// context: everything that needs one returns its error from then on.
CUresult enter(const char* call, Needs needs);
#define ENTER(needs)                                                    \
    std::lock_guard<std::recursive_mutex> lock_(::emu::driver().mutex); \
    if (CUresult result_ = ::emu::enter(__func__, ::emu::Needs::needs)) return result_
#define REQUIRE(condition, code)       \
    do {                               \
        if (!(condition)) return code; \
    } while (0)

// Records a finding and poisons the context.
void fail(CUresult code, const std::string& text);

// ---- driver_stream.cpp --------------------------------------------------------------------------
Stream* find_stream(CUstream stream);
void submit(Stream& stream, Operation&& operation);
void submit_run(Stream& stream, std::string what, std::function<void()> run,
                const void* host = nullptr, size_t host_bytes = 0, bool writes_host = false);
CUresult drain(Stream& stream);
CUresult drain_all();
template <class Condition>
void run_until(Stream* stream, Condition done);
bool force_head(Stream& stream, int depth = 0);
bool run_one_random();
void join_clock(StreamClock& clock, const StreamClock& other);

template <class Condition>
void run_until(Stream* stream, Condition done) {
    while (!done()) {
        if (driver().order == Order::Random && driver().below(2) && run_one_random()) continue;
        if (!(stream ? force_head(*stream) : run_one_random())) break;
    }
}

// ---- driver_pinned.cpp: pages of pinned memory that a queued copy uses are protected ------------
void install_page_guard();
void update_page_guard(uintptr_t begin, uintptr_t end);
void lift_page_guard(uintptr_t begin, uintptr_t end);
void report_guard_hits();
bool is_pinned(const void* pointer, size_t bytes);
size_t round_to_pages(size_t bytes);

// ---- image.cpp ----------------------------------------------------------------------------------
CUresult read_image(const void* image, int major, int minor, Module& module);

// ---- driver_launch.cpp --------------------------------------------------------------------------
const KernelInfo* find_kernel(const std::string& name);
// A thread in a trial runs its launches at once and collects what they find instead of failing.
struct Trial {
    bool on = false;
    u64 seed = 0;
    std::string findings;
};
extern thread_local Trial trial;

}  // namespace emu

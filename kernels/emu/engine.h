// The emulator's own data: threads, warps, blocks, clusters and one launch of a kernel.
//
// Every CUDA thread is a fiber; all run on one OS thread, so the engine needs no locks of its own
// (the driver holds one around it). A few clusters are alive at once; the scheduler picks by seed
// who runs next, and asynchronous engines (cp.async, TMA, wgmma) do their work as late, as early or
// as randomly as is legal. Beside the values, every byte of shared and global memory has a shadow
// that says who touched it and when (clock.h), so a missing wait, fence or barrier is found even
// when the numbers happen to be right.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "clock.h"
#include "intrinsics.h"
#include "report.h"

namespace emu {

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

struct Dim3 {
    u32 x = 1, y = 1, z = 1;
    u64 count() const { return (u64)x * y * z; }
};

// The shared window: byte 0 of a block's dynamic shared memory has this address (it must be a
// multiple of the strictest alignment). Addresses from cluster_map carry rank + 1 above bit 24.
constexpr u32 SHARED_BASE = 1024;
constexpr u32 RANK_SHIFT = 24;
constexpr size_t SHARED_CAPACITY = 256 * 1024;
constexpr int MAX_MBARRIERS = 64;  // per block
constexpr int MAX_CLUSTER = 16;
constexpr int WARP = 32;

struct Thread;
struct Warp;
struct Block;
struct Cluster;

// ---- asynchronous operations --------------------------------------------------------------------

// One cp.async of one thread.
struct CopyOp {
    u32 offset;
    const u8* source;
    u32 bytes, source_bytes;
    bool done;
};

// The part of a tensor that a TMA operation moves; rank 0 is a plain range of `bytes`.
struct TensorBox {
    u8 map[128];
    int rank;
    int coordinates[5];
    u64 global;
    u32 bytes;
};

// A load on its way to one block.
struct TmaLoad {
    TensorBox box;
    Block* block;
    u32 offset;    // in shared memory
    u32 mbarrier;  // index in block->mbarriers
    Pc pc;
};

// A store or reduction: first the source is read, later the result becomes visible.
struct TmaStore {
    TensorBox box;
    u32 offset;
    bool add, read, written;
    std::vector<u8> data;
    Pc pc;
};
struct TmaStoreGroup {
    std::vector<TmaStore> stores;
    bool source_released = false;
};

// The accumulators of a wgmma in flight. `values` is what they will hold; the registers themselves
// hold a NaN that nobody may touch.
struct Accumulator {
    float* registers[WARP];
    int count;
    std::vector<float> values;
    int in_flight;
};
struct WgmmaOp {
    std::shared_ptr<Accumulator> accumulator;
    int n;
    u64 a, b;
    bool accumulate, a_in_registers, done;
    int a_major, b_major;
    u32 a_fragments[WARP][4];
    Pc pc;
};

// ---- synchronisation ----------------------------------------------------------------------------

struct NamedBarrier {
    int expected = 0, arrived = 0;
    Handover handover;
    std::vector<Thread*> waiting;
};

struct Mbarrier {
    bool live;
    u32 offset, count;
    i64 pending, tx;
    u32 phase;
    int agent;
    bool visible_to_async;  // fence_mbarrier_init or a proxy fence followed the init
    int init_agent;
    Tick init_tick;
    Handover handover;
};

// A warp-wide operation that some lanes have reached.
struct Rendezvous {
    bool open = false;
    u32 mask;
    int operation;
    u64 signature;
    int arrived;
    void* operands[WARP];
};

// ---- threads, warps, blocks, clusters -----------------------------------------------------------

enum class State : u8 { Ready, Blocked, Done };
enum class WaitFor : u8 { Nothing, Warp, Barrier, Mbarrier, Cluster };

struct Thread {
    void* stack_pointer;
    u8* stack;
    Context* context;
    State state;
    WaitFor wait_for;
    u32 wait_detail, wait_parity;
    Pc wait_pc;
    int run_index;
    int id, lane, agent;  // agent: index in the clocks of the cluster
    Block* block;
    Warp* warp;
    ThreadClock clock;
    int false_try_waits;
    u32 cluster_generation;  // cluster barriers waited for
    std::vector<CopyOp> open_copies;
    std::deque<std::vector<CopyOp>> copy_groups;
    TmaStoreGroup open_stores;
    std::deque<TmaStoreGroup> store_groups;
};

struct Warp {
    int id, agent;  // agent: counts this warp's finished wgmma groups
    Block* block;
    Rendezvous rendezvous[4];
    u32 elected_lane;
    double priority;
    // wgmma
    std::vector<WgmmaOp> open_wgmma;
    std::deque<std::vector<WgmmaOp>> wgmma_groups;
    u32 committed_groups;
    u64 wgmma_history;  // hash of what was issued: the four warps must agree
    bool registers_fenced;
    std::vector<std::shared_ptr<Accumulator>> accumulators;
    // The minimum over the lanes' clocks, cached until a lane's clock changes.
    std::vector<Tick> all_lanes, all_lanes_async;
    u64 clock_version, all_lanes_version;
};

// Shadow of one block's shared memory, one entry per byte; see shared_memory.cpp.
struct SharedShadow {
    std::vector<u64> writer;  // packed kind, agent, tick
    std::vector<Pc> writer_pc;
    std::vector<u32> reader_warps;  // bit per warp of this block
    std::vector<u8> async_readers;  // TMA stores that may still read
    std::vector<Tick> read_tick;    // [warp][byte]
    std::vector<u8> read_lane;      // [warp][byte]
    std::vector<u32> wgmma_warps;   // per 16 bytes: bit per warp whose wgmma may still read
    std::vector<Tick> wgmma_group;  // [warp][16 bytes]: until which group
    std::unordered_map<u32, std::vector<std::pair<int, Tick>>> remote_reads;
    size_t bytes;
};

struct Block {
    Cluster* cluster;
    int rank;  // in the cluster
    Index3 index;
    int num_threads, num_warps, running, num_mbarriers;
    Thread* threads;
    std::vector<Warp> warps;
    u8* shared;
    u32 shared_bytes;
    SharedShadow shadow;
    NamedBarrier barriers[16];
    std::vector<Mbarrier> mbarriers;
    std::vector<u16> mbarrier_at;  // per 8 bytes: index + 1
    std::vector<TmaLoad> loads;
};

struct Cluster {
    int index;
    bool active;
    int running;  // threads
    std::vector<Block> blocks;
    int num_agents;                    // clock entries, padded
    std::vector<Tick> general, async;  // [thread][agent]
    int arrived;
    u32 generation;  // completed cluster barriers
    Handover handover;
    std::vector<Thread*> waiting;
};

// ---- one launch ---------------------------------------------------------------------------------

// When asynchronous engines move, and who runs next. Chosen by seed unless fixed.
enum class AsyncMode { Late, Random, Early };
enum class ScheduleMode { Uniform, WarpPriorities, StickToWarp };

struct Options {
    u64 seed = 1;
    bool check_races = true;
    bool writer_fences = true;   // a proxy fence counts only for the writes of the thread itself
    bool truncate_sums = false;  // tensor cores round towards zero after each k16 step
    int resident_clusters = 2;
    u64 spin_limit = 4000000;  // fruitless polls before a launch counts as hung
};

struct LaunchConfig {
    const char* name;
    void (*call)(void (*)(), void**);
    void (*body)();
    void** arguments;
    Dim3 grid, block, cluster;
    u32 shared_bytes;
    Options options;
};

struct Launch {
    LaunchConfig config;
    std::vector<Finding> findings;
    std::map<std::pair<std::string, Pc>, int> seen;
    u64 random_state;
    AsyncMode async_mode;
    ScheduleMode schedule_mode;
    int num_threads;              // per block
    std::vector<Thread> threads;  // of all resident clusters
    std::vector<std::unique_ptr<Cluster>> clusters;
    std::vector<int> order;  // in which clusters start
    size_t next_cluster = 0;
    std::vector<int> ready;  // indices in `threads`
    Thread* current = nullptr;
    void* main_stack_pointer = nullptr;
    Cluster* finished = nullptr;
    bool dead = false;
    u64 spins = 0;
    std::unordered_map<uintptr_t, ForeignPtr> released;  // what was released at an address
    u64 matrix_phases = 0, bank_conflicts = 0;

    u64 random() {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state * 0x2545F4914F6CDD1Dull;
    }
    u32 below(u32 n) { return (u32)((random() >> 32) * n >> 32); }
    bool one_in(u32 n) { return below(n) == 0; }
};

// The launch in progress; null outside.
extern Launch* launch;

inline Thread* self() { return launch->current; }

// Runs a kernel to its end and returns what was found.
std::vector<Finding> run_launch(const LaunchConfig& config);

// ---- scheduler.cpp ------------------------------------------------------------------------------
void block_on(WaitFor what, u32 detail, Pc pc);
void make_ready(Thread* thread);
void yield();
// Ends the launch at once, as an illegal address does on hardware.
[[noreturn]] void abort_launch();
// A poll that found nothing new; reports a launch that only polls.
void count_spin(Pc pc);
void made_progress();

// ---- blocks.cpp ---------------------------------------------------------------------------------
void start_cluster(Cluster& cluster);
void finish_cluster(Cluster& cluster);
void report_deadlock();

// ---- shared_memory.cpp --------------------------------------------------------------------------
enum class WriterKind : u8 {
    Nobody,
    Thread,    // agent is a thread
    Atomic,    // the same, by an atomic operation
    Tma,       // agent is an mbarrier, tick its phase
    OpenCopy,  // cp.async not yet waited for
    OpenTma,   // TMA not yet complete
    MbarrierStorage
};
constexpr u64 pack_writer(WriterKind kind, int agent, Tick tick) {
    return (u64)kind << 56 | (u64)(u32)agent << 32 | tick;
}
inline WriterKind writer_kind(u64 w) { return (WriterKind)(w >> 56); }
inline int writer_agent(u64 w) { return (int)(w >> 32 & 0xffffff); }
inline Tick writer_tick(u64 w) { return (Tick)w; }

enum class Access : u8 { Read, Write, Atomic };

void start_shared(Block& block);
void shared_access(Thread& thread, Block& block, u32 offset, u32 bytes, Access access, Pc pc);
// Resolves a 32-bit address of the running thread; reports and returns false if it does not fit.
bool resolve_shared(u32 shared, u32 bytes, u32 alignment, Pc pc, const char* what, Block** block,
                    u32* offset);
void mark_written(Block& block, u32 offset, u32 bytes, u64 writer, Pc pc);
bool write_is_ordered(u64 writer, const Tick* general, int self_agent);
// Whether an access of the async proxy by a thread with these clocks is ordered after the writes.
bool check_async_read(Block& block, u32 offset, u32 bytes, const Tick* general, const Tick* async,
                      Pc pc, const char* what);
void check_async_write(Block& block, u32 offset, u32 bytes, Pc pc);
void check_readers(Block& block, u32 offset, u32 bytes, const Tick* general, int self_agent, Pc pc,
                   const char* what);
void record_read(Thread& thread, Block& block, u32 offset, u32 bytes);

// ---- mbarrier.cpp -------------------------------------------------------------------------------
// The live mbarrier at an address, or null after a report.
Mbarrier* find_mbarrier(u32 shared, Pc pc, const char* what, Block** block);
void complete_tx(Block& block, Mbarrier& mbarrier, i64 bytes);

// ---- the asynchronous engines -------------------------------------------------------------------
void apply_copy(Thread& thread, CopyOp& op);
void finish_tma_load(Block& block, size_t index);
void read_store_source(Thread& thread, TmaStore& store);
void write_store_result(TmaStore& store);
void add_floats(const TensorBox& box, u8* to, const u8* from, u32 bytes, Pc pc);
void apply_wgmma(Warp& warp, WgmmaOp& op);
// Lets one engine make one step. Unless `forced`, only those whose moment is free.
bool advance_engines(bool forced);

// ---- matrix.cpp ---------------------------------------------------------------------------------
// c (16 x n, rows b_stride apart) += a (16 x 16) * b (16 x n, rows b_stride apart).
void multiply_add(const float* a, const float* b, float* c, int n, int b_stride);

// ---- warp.cpp -----------------------------------------------------------------------------------
enum class WarpOp {
    Sync,
    Shuffle,
    Vote,
    Reduce,
    Elect,
    Registers,
    LoadMatrix,
    StoreMatrix,
    Mma,
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait,
    Wgmma,
    ClusterArrive,
    ClusterWait
};
const char* warp_op_name(int operation);

// Every lane of `mask` brings a pointer to its operands; the last one runs `run` for all of them.
template <class Run>
void meet(u32 mask, WarpOp operation, u64 signature, void* operands, Pc pc, Run run);
Rendezvous* join_warp(u32 mask, WarpOp operation, u64 signature, void* operands, Pc pc);
void release_warp(u32 mask);

template <class Run>
void meet(u32 mask, WarpOp operation, u64 signature, void* operands, Pc pc, Run run) {
    Thread* thread = self();
    Rendezvous* r = join_warp(mask, operation, signature, operands, pc);
    if (!r) return;  // this lane had to wait, and another one did the work meanwhile
    run(*thread->warp, r->operands);
    release_warp(mask);
}

}  // namespace emu

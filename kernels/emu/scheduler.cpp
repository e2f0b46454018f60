// Who runs next. Everything random comes from the launch's seed, so a run can be repeated.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <chrono>

#include "engine.h"
#include "fiber.h"

namespace emu {

Launch* launch = nullptr;

const Context& context() { return *launch->current->context; }

void make_ready(Thread* thread) {
    if (thread->state != State::Blocked) return;
    thread->state = State::Ready;
    thread->wait_for = WaitFor::Nothing;
    thread->run_index = (int)launch->ready.size();
    launch->ready.push_back((int)(thread - launch->threads.data()));
}

namespace {

Thread* take_ready(int position) {
    auto& ready = launch->ready;
    Thread* thread = &launch->threads[(size_t)ready[(size_t)position]];
    int last = ready.back();
    ready.pop_back();
    if (position < (int)ready.size()) {
        ready[(size_t)position] = last;
        launch->threads[(size_t)last].run_index = position;
    }
    return thread;
}

double& priority(int position) {
    return launch->threads[(size_t)launch->ready[(size_t)position]].warp->priority;
}

int pick() {
    u32 n = (u32)launch->ready.size();
    if (n == 1) return 0;
    switch (launch->schedule_mode) {
    case ScheduleMode::WarpPriorities: {
        // Priorities rarely change, so some warps starve for long and skew against others.
        if (launch->one_in(512)) priority((int)launch->below(n)) = launch->below(1u << 30);
        int best = (int)launch->below(n);
        for (int i = 0; i < 6; i++) {
            int other = (int)launch->below(n);
            if (priority(other) > priority(best)) best = other;
        }
        return best;
    }
    case ScheduleMode::StickToWarp: return launch->one_in(8) ? (int)launch->below(n) : (int)n - 1;
    case ScheduleMode::Uniform: break;
    }
    return (int)launch->below(n);
}

// The next thread to run; null if nothing can move any more.
Thread* choose() {
    Thread* previous = launch->current;
    launch->current = nullptr;
    for (;;) {
        if (launch->async_mode == AsyncMode::Early) {
            while (advance_engines(false)) {
            }
        } else if (launch->async_mode == AsyncMode::Random && launch->one_in(4)) {
            advance_engines(false);
        }
        if (!launch->ready.empty()) return take_ready(pick());
        if (!advance_engines(true)) break;
    }
    launch->current = previous;
    report_deadlock();
    launch->dead = true;
    return nullptr;
}

void run_next() {
    Thread* thread = self();
    Thread* next = choose();
    if (!next) {
        emu_switch(&thread->stack_pointer, launch->main_stack_pointer);
        abort();
    }
    launch->current = next;
    if (next != thread) emu_switch(&thread->stack_pointer, next->stack_pointer);
}

void thread_main() {
    launch->config.call(launch->config.body, launch->config.arguments);
    Thread* thread = self();
    thread->state = State::Done;
    thread->block->running--;
    Cluster* cluster = thread->block->cluster;
    if (--cluster->running == 0) {
        // The main stack recycles the cluster: this stack is part of it.
        launch->finished = cluster;
        emu_switch(&thread->stack_pointer, launch->main_stack_pointer);
    } else {
        run_next();
    }
    abort();
}

}  // namespace

void block_on(WaitFor what, u32 detail, Pc pc) {
    Thread* thread = self();
    thread->state = State::Blocked;
    thread->wait_for = what;
    thread->wait_detail = detail;
    thread->wait_pc = pc;
    run_next();
}

void yield() {
    Thread* thread = self();
    thread->state = State::Blocked;
    make_ready(thread);
    run_next();
}

void yield_to_others() { yield(); }

void abort_launch() {
    Thread* thread = self();
    launch->dead = true;
    emu_switch(&thread->stack_pointer, launch->main_stack_pointer);
    abort();
}

void made_progress() { launch->spins = 0; }

void count_spin(Pc pc) {
    if (++launch->spins < launch->config.options.spin_limit) return;
    report("hang", pc, "only polling since %llu polls: nobody changes what it waits for",
           (unsigned long long)launch->spins);
    abort_launch();
}

uint64_t global_timer() { return (u64)std::chrono::steady_clock::now().time_since_epoch().count(); }

uint32_t multiprocessor_id() { return (u32)self()->block->cluster->index % 4; }

// Sets a thread up to run the kernel from its beginning.
static void prepare_thread(Thread& thread, size_t index) {
    thread.stack = fiber_stack(index);
    thread.context = (Context*)fiber_local(thread.stack, index);
    thread.stack_pointer = prepare_fiber(thread.stack, index, thread_main);
}

static void start_next_cluster(Cluster& cluster) {
    cluster.index = launch->order[launch->next_cluster++];
    for (Block& block : cluster.blocks)
        for (int i = 0; i < block.num_threads; i++) {
            Thread& thread = block.threads[i];
            prepare_thread(thread, (size_t)(&thread - launch->threads.data()));
        }
    start_cluster(cluster);
}

static u8* map_shared_memory() {
    void* memory =
        mmap(nullptr, SHARED_CAPACITY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return (u8*)memory;
}

static void create_clusters(Launch& l) {
    const Dim3& dims = l.config.cluster;
    u64 blocks_per_cluster = dims.count();
    size_t num_clusters = (size_t)(l.config.grid.count() / blocks_per_cluster);
    l.order.resize(num_clusters);
    for (size_t i = 0; i < num_clusters; i++) l.order[i] = (int)i;
    for (size_t i = num_clusters; i > 1; i--) std::swap(l.order[i - 1], l.order[l.below((u32)i)]);

    size_t resident = std::min((size_t)l.config.options.resident_clusters, num_clusters);
    l.threads.resize(resident * blocks_per_cluster * (size_t)l.num_threads);
    Thread* next_threads = l.threads.data();
    for (size_t i = 0; i < resident; i++) {
        l.clusters.push_back(std::make_unique<Cluster>());
        Cluster& cluster = *l.clusters.back();
        cluster.blocks = std::vector<Block>(blocks_per_cluster);
        for (size_t rank = 0; rank < blocks_per_cluster; rank++) {
            Block& block = cluster.blocks[rank];
            block.cluster = &cluster;
            block.rank = (int)rank;
            block.num_threads = l.num_threads;
            block.threads = next_threads;
            block.shared = map_shared_memory();
            next_threads += l.num_threads;
        }
        start_next_cluster(cluster);
    }
}

// Until every cluster has run, or nothing can.
static void run_clusters(Launch& l) {
    while (!l.dead) {
        if (Cluster* cluster = l.finished) {
            l.finished = nullptr;
            l.current = nullptr;
            finish_cluster(*cluster);
            if (l.next_cluster < l.order.size()) start_next_cluster(*cluster);
            bool any = false;
            for (auto& c : l.clusters) any |= c->active;
            if (!any) break;
        }
        Thread* next = choose();
        if (!next) break;
        l.current = next;
        emu_switch(&l.main_stack_pointer, next->stack_pointer);
    }
    l.current = nullptr;
}

std::vector<Finding> run_launch(const LaunchConfig& config) {
    Launch l;
    launch = &l;
    l.config = config;
    l.random_state = config.options.seed * 0x9E3779B97F4A7C15ull + 0x1234567;
    if (!l.random_state) l.random_state = 1;
    for (int i = 0; i < 8; i++) l.random();
    l.async_mode = (AsyncMode)(config.options.seed % 3);
    l.schedule_mode = (ScheduleMode)(config.options.seed / 3 % 3);
    l.num_threads = (int)config.block.count();
    create_clusters(l);
    run_clusters(l);
    for (auto& cluster : l.clusters)
        for (Block& block : cluster->blocks) munmap(block.shared, SHARED_CAPACITY);
    launch = nullptr;
    return std::move(l.findings);
}

}  // namespace emu

// The calls that kernels/ptx and kernel.h make into the emulator, one per special instruction.
// Addresses named `shared` are 32-bit addresses in the shared window, as the instructions take
// them. `site` is the source line of a warp-collective instruction.
#pragma once
#include <stdint.h>

namespace emu {

struct Index3 {
    unsigned x, y, z;
};
struct Context {
    Index3 thread, block, block_size, grid_size;
};
// Indices of the running thread.
const Context& context() __attribute__((const));

enum class Shuffle { Index, Up, Down, Xor };
enum class Reduction { Add, Min, Max };
enum class Atomic { Add, Min, Max, Or, Exchange, CompareExchange };

// memory.cpp, atomics.cpp
unsigned char* dynamic_shared();
uint32_t shared_address(const void* pointer);
void load_constant(void* value, const void* global, uint32_t bytes);
void store_global(void* global, const void* value, uint32_t bytes);
uint32_t load_acquire(const uint32_t* flag);
void store_release(uint32_t* flag, uint32_t value);
void add_release(uint32_t* counter, uint32_t value);
uint32_t add_acquire_release(uint32_t* counter, uint32_t value);
uint64_t atomic(void* target, int bytes, Atomic operation, uint64_t value, uint64_t compare);
void thread_fence();

// scheduler.cpp
void yield_to_others();
uint64_t global_timer();
uint32_t multiprocessor_id();

// warp.cpp
uint32_t lane_id();
void sync_warp(uint32_t mask);
uint32_t shuffle(uint32_t mask, uint32_t value, Shuffle mode, int operand, int width);
uint32_t ballot(uint32_t mask, int predicate);
uint32_t reduce(uint32_t mask, uint32_t value, Reduction operation);
bool elect(uint32_t mask, int site);
void set_max_registers(int registers, bool increase, int site);

// barrier.cpp; threads 0 means the whole block
void barrier_sync(int id, int threads);
void barrier_arrive(int id, int threads);

// matrix.cpp
void ldmatrix(uint32_t* r, int matrices, bool transposed, uint32_t shared, int site);
void stmatrix(const uint32_t* r, int matrices, bool transposed, uint32_t shared, int site);
void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, int site);

// cp_async.cpp
void cp_async(uint32_t shared, const void* global, uint32_t bytes, uint32_t source_bytes);
void cp_async_commit();
void cp_async_wait(int pending);
void cp_async_mbarrier_arrive(uint32_t mbarrier);

// mbarrier.cpp
void mbarrier_init(uint32_t mbarrier, uint32_t arrivals);
void mbarrier_invalidate(uint32_t mbarrier);
void mbarrier_arrive(uint32_t mbarrier, uint32_t count);
void mbarrier_expect_tx(uint32_t mbarrier, uint32_t bytes, bool arrive);
bool mbarrier_try_wait(uint32_t mbarrier, uint32_t parity);
void fence_mbarrier_init();
void fence_proxy_async();
void fence_proxy_async_global();

// tma.cpp
void tma_prefetch(const void* map);
void tma_load(int rank, uint32_t shared, const void* map, uint32_t mbarrier, const int* coordinates,
              uint16_t multicast_ranks);
void tma_store(int rank, const void* map, uint32_t shared, const int* coordinates, bool add);
void bulk_load(uint32_t shared, const void* global, uint32_t bytes, uint32_t mbarrier);
void bulk_store(void* global, uint32_t shared, uint32_t bytes, bool add);
void bulk_commit();
void bulk_wait(int pending, bool read_only);

// wgmma.cpp
void wgmma_fence(int site);
void wgmma_commit(int site);
void wgmma_wait(int pending, int site);
void wgmma(float* d, int n, const uint32_t* a_registers, uint64_t a, uint64_t b, bool accumulate,
           int a_major, int b_major, int site);

// cluster.cpp
uint32_t cluster_rank();
uint32_t cluster_size();
void cluster_arrive(int site);
void cluster_wait(int site);
uint32_t cluster_map(uint32_t shared, uint32_t rank);
uint32_t cluster_load(uint32_t mapped);

}  // namespace emu

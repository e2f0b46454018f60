// TMA (sm_90): copies of boxes of a tensor between global and shared memory, described by a tensor
// map that the host encodes (cuTensorMapEncodeTiled). One thread issues; coordinates are in
// elements, innermost dimension first, may be negative or past the end: such elements read as zero
// and are not written.
//
// Loads announce their bytes to an mbarrier (always those of the whole box) and are visible to who
// waits for it. Stores read shared memory, so the threads that wrote it need fence_proxy_async and
// a barrier first; bulk_wait_read frees the source, only bulk_wait completes the write.
//
// A tensor map is a `const __grid_constant__ TensorMap` parameter of the kernel, passed by address.
#pragma once
#include "compiler.cuh"

struct alignas(128) TensorMap {
    u64 opaque[16];
};

#if PTX_SM90
namespace ptx {

// prefetch.tensormap: a hint.
DEVICE void prefetch_tensor_map(const TensorMap* map) {
#if EMULATED
    emu::tma_prefetch(map);
#else
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
#endif
}

#if EMULATED
// tma_load(destination, map, mbarrier, c0, ...): rank 1 to 5 by the number of coordinates.
template <class... C>
DEVICE void tma_load(u32 destination, const TensorMap* map, u32 mbarrier, C... coordinates) {
    int c[] = {(int)coordinates...};
    emu::tma_load((int)sizeof...(C), destination, map, mbarrier, c, 0);
}

template <class... C>
DEVICE void tma_load_multicast(u32 destination, const TensorMap* map, u32 mbarrier, u16 ranks,
                               C... coordinates) {
    int c[] = {(int)coordinates...};
    emu::tma_load((int)sizeof...(C), destination, map, mbarrier, c, ranks);
}

template <class... C>
DEVICE void tma_load_hinted(u32 destination, const TensorMap* map, u32 mbarrier, u64 /*policy*/,
                            C... coordinates) {
    tma_load(destination, map, mbarrier, coordinates...);
}

template <class... C>
DEVICE void tma_store(const TensorMap* map, u32 source, C... coordinates) {
    int c[] = {(int)coordinates...};
    emu::tma_store((int)sizeof...(C), map, source, c, false);
}

template <class... C>
DEVICE void tma_reduce_add(const TensorMap* map, u32 source, C... coordinates) {
    int c[] = {(int)coordinates...};
    emu::tma_store((int)sizeof...(C), map, source, c, true);
}
#else
// One set of functions per rank. PARAMS are the coordinates as parameters, AT their operands from
// %3 on, INPUTS the operands themselves.
#define TMA_RANK(RANK, PARAMS, AT, INPUTS, HINT)                                                   \
    DEVICE void tma_load(u32 destination, const TensorMap* map, u32 mbarrier, PARAMS) {            \
        asm volatile("cp.async.bulk.tensor." RANK                                                  \
                     ".shared::cluster.global.mbarrier::complete_tx::bytes"                        \
                     " [%0], [%1, {" AT "}], [%2];" ::"r"(destination),                            \
                     "l"(map), "r"(mbarrier), INPUTS                                               \
                     : "memory");                                                                  \
    }                                                                                              \
    /* The same box to the same place in every block of the cluster named in the mask `ranks`. */  \
    DEVICE void tma_load_multicast(u32 destination, const TensorMap* map, u32 mbarrier, u16 ranks, \
                                   PARAMS) {                                                       \
        asm volatile("cp.async.bulk.tensor." RANK                                                  \
                     ".shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"     \
                     " [%0], [%1, {" AT "}], [%2], %" HINT ";" ::"r"(destination),                 \
                     "l"(map), "r"(mbarrier), INPUTS, "h"(ranks)                                   \
                     : "memory");                                                                  \
    }                                                                                              \
    DEVICE void tma_load_hinted(u32 destination, const TensorMap* map, u32 mbarrier, u64 policy,   \
                                PARAMS) {                                                          \
        asm volatile("cp.async.bulk.tensor." RANK                                                  \
                     ".shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"         \
                     " [%0], [%1, {" AT "}], [%2], %" HINT ";" ::"r"(destination),                 \
                     "l"(map), "r"(mbarrier), INPUTS, "l"(policy)                                  \
                     : "memory");                                                                  \
    }                                                                                              \
    /* %2 is a placeholder that keeps the coordinates at %3. */                                    \
    DEVICE void tma_store(const TensorMap* map, u32 source, PARAMS) {                              \
        asm volatile("cp.async.bulk.tensor." RANK                                                  \
                     ".global.shared::cta.bulk_group"                                              \
                     " [%0, {" AT "}], [%1];" ::"l"(map),                                          \
                     "r"(source), "n"(0), INPUTS                                                   \
                     : "memory");                                                                  \
    }                                                                                              \
    DEVICE void tma_reduce_add(const TensorMap* map, u32 source, PARAMS) {                         \
        asm volatile("cp.reduce.async.bulk.tensor." RANK                                           \
                     ".global.shared::cta.add.bulk_group"                                          \
                     " [%0, {" AT "}], [%1];" ::"l"(map),                                          \
                     "r"(source), "n"(0), INPUTS                                                   \
                     : "memory");                                                                  \
    }
#define TMA_LIST(...) __VA_ARGS__
TMA_RANK("1d", int c0, "%3", "r"(c0), "4")
TMA_RANK("2d", TMA_LIST(int c0, int c1), "%3, %4", TMA_LIST("r"(c0), "r"(c1)), "5")
TMA_RANK("3d", TMA_LIST(int c0, int c1, int c2), "%3, %4, %5", TMA_LIST("r"(c0), "r"(c1), "r"(c2)),
         "6")
TMA_RANK("4d", TMA_LIST(int c0, int c1, int c2, int c3), "%3, %4, %5, %6",
         TMA_LIST("r"(c0), "r"(c1), "r"(c2), "r"(c3)), "7")
TMA_RANK("5d", TMA_LIST(int c0, int c1, int c2, int c3, int c4), "%3, %4, %5, %6, %7",
         TMA_LIST("r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)), "8")
#undef TMA_LIST
#undef TMA_RANK
#endif

// createpolicy: a cache policy for tma_load_hinted. evict_first: data read once.
DEVICE u64 policy_evict_first() {
#if EMULATED
    return 0;
#else
    u64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
#endif
}

// evict_last: data that other blocks will read again soon.
DEVICE u64 policy_evict_last() {
#if EMULATED
    return 0;
#else
    u64 policy;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    return policy;
#endif
}

// cp.async.bulk: `bytes` contiguous bytes, no tensor map. Addresses and size are multiples of 16.
DEVICE void bulk_load(u32 destination, const void* source, u32 bytes, u32 mbarrier) {
#if EMULATED
    emu::bulk_load(destination, source, bytes, mbarrier);
#else
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(destination),
        "l"(source), "r"(bytes), "r"(mbarrier)
        : "memory");
#endif
}

DEVICE void bulk_store(void* destination, u32 source, u32 bytes) {
#if EMULATED
    emu::bulk_store(destination, source, bytes, false);
#else
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(destination),
                 "r"(source), "r"(bytes)
                 : "memory");
#endif
}

// cp.reduce.async.bulk.add.f32: destination[i] += source[i], one at a time but in no fixed order
// between blocks; the caller orders them when results have to be reproducible.
DEVICE void bulk_reduce_add_f32(float* destination, u32 source, u32 bytes) {
#if EMULATED
    emu::bulk_store(destination, source, bytes, true);
#else
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(
                     destination),
                 "r"(source), "r"(bytes)
                 : "memory");
#endif
}

// Closes the group of all bulk stores of this thread since the last commit.
DEVICE void bulk_commit() {
#if EMULATED
    emu::bulk_commit();
#else
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}

// Until all but the PENDING newest groups have read their source: shared memory may be reused.
template <int PENDING>
DEVICE void bulk_wait_read() {
#if EMULATED
    emu::bulk_wait(PENDING, true);
#else
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
#endif
}

// Until all but the PENDING newest groups are complete: global memory holds the result.
template <int PENDING>
DEVICE void bulk_wait() {
#if EMULATED
    emu::bulk_wait(PENDING, false);
#else
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

}  // namespace ptx
#endif

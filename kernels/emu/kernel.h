// What a kernel sees when g++ compiles it: CUDA's keywords, types and built-in functions, and how
// it makes itself known to the stand-in driver. The calls behind kernels/ptx are in intrinsics.h.
//
// Deliberately incomplete: what hooke's kernels must not use (static __shared__ variables, float
// atomics, textures, ...) is not here and does not compile.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "intrinsics.h"
#include "kernel_info.h"

// ---- kernels ------------------------------------------------------------------------------------

#define KERNEL(name, threads, ...) KERNEL_MIN_BLOCKS(name, threads, 1, __VA_ARGS__)
#define KERNEL_MIN_BLOCKS(name, threads, min_blocks, ...)                                 \
    extern "C" void name(__VA_ARGS__);                                                    \
    static const ::emu::Registration name##_registration(#name, name, threads, __FILE__); \
    extern "C" __attribute__((noinline)) void name(__VA_ARGS__)
#define DYNAMIC_SHARED(name) unsigned char* const name = ::emu::dynamic_shared()

#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

namespace emu {

template <class... A>
struct Signature {
    static constexpr uint32_t count = sizeof...(A);
    static constexpr uint32_t sizes[count + 1] = {(uint32_t)sizeof(A)..., 0};
    static constexpr uint32_t alignments[count + 1] = {(uint32_t)alignof(A)..., 0};

    template <size_t... I>
    __attribute__((no_sanitize("thread"), noinline)) static void unpack(void (*kernel)(A...),
                                                                        void** arguments,
                                                                        std::index_sequence<I...>) {
        kernel(*reinterpret_cast<std::remove_reference_t<A>*>(arguments[I])...);
    }
    // Not instrumented: the arguments are the driver's, not device memory.
    __attribute__((no_sanitize("thread"), noinline)) static void call(void (*body)(),
                                                                      void** arguments) {
        unpack(reinterpret_cast<void (*)(A...)>(body), arguments, std::index_sequence_for<A...>{});
    }
};

struct Registration {
    KernelInfo info;
    template <class... A>
    Registration(const char* name, void (*kernel)(A...), uint32_t threads, const char* file)
        : info{name,
               file,
               reinterpret_cast<void (*)()>(kernel),
               Signature<A...>::call,
               threads,
               Signature<A...>::count,
               Signature<A...>::sizes,
               Signature<A...>::alignments} {
        register_kernel(&info);
    }
};

}  // namespace emu

// ---- vector types -------------------------------------------------------------------------------

#define EMU_VECTORS(scalar, name)                                                  \
    struct __align__(2 * sizeof(scalar)) name##2 { scalar x, y; };                 \
    struct __align__(16) name##4 { scalar x, y, z, w; };                           \
    static inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }    \
    static inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { \
        return {x, y, z, w};                                                       \
    }
EMU_VECTORS(float, float)
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)
#undef EMU_VECTORS

// ---- indices and barriers -----------------------------------------------------------------------

#define threadIdx (::emu::context().thread)
#define blockIdx (::emu::context().block)
#define blockDim (::emu::context().block_size)
#define gridDim (::emu::context().grid_size)

static inline void __syncthreads() { emu::barrier_sync(0, 0); }
static inline void __syncwarp(uint32_t mask = 0xffffffffu) { emu::sync_warp(mask); }
static inline void __threadfence() { emu::thread_fence(); }
static inline void __threadfence_block() { emu::thread_fence(); }
static inline void __nanosleep(unsigned) { emu::yield_to_others(); }

// ---- shuffles, votes, integer reductions --------------------------------------------------------

namespace emu {
template <class T>
static inline T shuffle_any(uint32_t mask, T value, Shuffle mode, int operand, int width) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint32_t words[sizeof(T) / 4];
    memcpy(words, &value, sizeof value);
    for (auto& word : words) word = shuffle(mask, word, mode, operand, width);
    memcpy(&value, words, sizeof value);
    return value;
}
}  // namespace emu

template <class T>
static inline T __shfl_sync(uint32_t mask, T value, int lane, int width = 32) {
    return emu::shuffle_any(mask, value, emu::Shuffle::Index, lane, width);
}
template <class T>
static inline T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
    return emu::shuffle_any(mask, value, emu::Shuffle::Up, (int)delta, width);
}
template <class T>
static inline T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
    return emu::shuffle_any(mask, value, emu::Shuffle::Down, (int)delta, width);
}
template <class T>
static inline T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32) {
    return emu::shuffle_any(mask, value, emu::Shuffle::Xor, lane_mask, width);
}
static inline uint32_t __ballot_sync(uint32_t mask, int predicate) {
    return emu::ballot(mask, predicate);
}
static inline int __any_sync(uint32_t mask, int predicate) {
    return emu::ballot(mask, predicate) != 0;
}
static inline int __all_sync(uint32_t mask, int predicate) {
    return emu::ballot(mask, predicate) == mask;
}

// ---- integer atomics, relaxed as in CUDA: order comes from __threadfence ------------------------

static inline unsigned atomicAdd(unsigned* p, unsigned v) {
    return (unsigned)emu::atomic(p, 4, emu::Atomic::Add, v, 0);
}
static inline int atomicAdd(int* p, int v) {
    return (int)emu::atomic(p, 4, emu::Atomic::Add, (unsigned)v, 0);
}
static inline unsigned long long atomicAdd(unsigned long long* p, unsigned long long v) {
    return emu::atomic(p, 8, emu::Atomic::Add, v, 0);
}
static inline unsigned atomicMax(unsigned* p, unsigned v) {
    return (unsigned)emu::atomic(p, 4, emu::Atomic::Max, v, 0);
}
static inline unsigned atomicMin(unsigned* p, unsigned v) {
    return (unsigned)emu::atomic(p, 4, emu::Atomic::Min, v, 0);
}
static inline unsigned atomicOr(unsigned* p, unsigned v) {
    return (unsigned)emu::atomic(p, 4, emu::Atomic::Or, v, 0);
}
static inline unsigned atomicExch(unsigned* p, unsigned v) {
    return (unsigned)emu::atomic(p, 4, emu::Atomic::Exchange, v, 0);
}
static inline unsigned atomicCAS(unsigned* p, unsigned compare, unsigned v) {
    return (unsigned)emu::atomic(p, 4, emu::Atomic::CompareExchange, v, compare);
}

// ---- arithmetic ---------------------------------------------------------------------------------

static inline float rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }
static inline unsigned __float_as_uint(float x) {
    unsigned u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float __uint_as_float(unsigned u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
static inline int __float_as_int(float x) { return (int)__float_as_uint(x); }
static inline float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((unsigned long long)a * b >> 32);
}
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }

#define EMU_MIN_MAX(type)                                            \
    static inline type min(type a, type b) { return b < a ? b : a; } \
    static inline type max(type a, type b) { return a < b ? b : a; }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
#undef EMU_MIN_MAX
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }

// Global memory beyond plain pointers: 16-byte accesses with cache hints, and acquire/release.
//
// Plain loads and stores are written as plain C++; under g++ the compiler instruments them, so
// they are checked for bounds, alignment and races like everything here.
#pragma once
#include "compiler.cuh"

namespace ptx {

// ld.global.nc.L1::no_allocate.v4: streaming read of data that nobody writes during the kernel
// (the emulator reports it if somebody does). 16-byte aligned.
DEVICE uint4 load_streaming(const void* source) {
    uint4 v;
#if EMULATED
    emu::load_constant(&v, source, sizeof v);
#else
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(source));
#endif
    return v;
}

// ld.global.nc.v4: read-only data that will be read again. 16-byte aligned.
DEVICE uint4 load_constant(const void* source) {
    uint4 v;
#if EMULATED
    emu::load_constant(&v, source, sizeof v);
#else
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(source));
#endif
    return v;
}

// st.global.cs.v4: a result that this kernel does not read again. 16-byte aligned.
DEVICE void store_streaming(void* destination, uint4 v) {
#if EMULATED
    emu::store_global(destination, &v, sizeof v);
#else
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(destination), "r"(v.x),
                 "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
#endif
}

// ld.acquire.gpu: what the matching release ordered is visible to this thread afterwards.
DEVICE u32 load_acquire(const u32* flag) {
#if EMULATED
    return emu::load_acquire(flag);
#else
    u32 value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    return value;
#endif
}

// st.release.gpu: orders everything this thread did or was ordered after.
DEVICE void store_release(u32* flag, u32 value) {
#if EMULATED
    emu::store_release(flag, value);
#else
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
#endif
}

// red.release.gpu.add: an arrival at a counter in global memory.
DEVICE void add_release(u32* counter, u32 value) {
#if EMULATED
    emu::add_release(counter, value);
#else
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(counter), "r"(value) : "memory");
#endif
}

// atom.acq_rel.gpu.add: the value before. For "the last block to arrive finishes the job".
DEVICE u32 add_acquire_release(u32* counter, u32 value) {
#if EMULATED
    return emu::add_acquire_release(counter, value);
#else
    u32 before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(counter), "r"(value)
                 : "memory");
    return before;
#endif
}

// nanosleep: a hint for loops that wait for another block.
DEVICE void sleep_nanoseconds(u32 nanoseconds) {
#if EMULATED
    emu::yield_to_others();
    (void)nanoseconds;
#else
    asm volatile("nanosleep.u32 %0;" ::"r"(nanoseconds));
#endif
}

// The 32-bit address of a pointer into shared memory, as every instruction on it takes it.
DEVICE u32 shared_address(const void* pointer) {
#if EMULATED
    return emu::shared_address(pointer);
#else
    return (u32)__cvta_generic_to_shared(pointer);
#endif
}

}  // namespace ptx

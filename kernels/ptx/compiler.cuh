// What differs between the two compilers of a kernel: nvcc (the GPU) and g++ (the emulator).
//
// Kernels use KERNEL, DEVICE and DYNAMIC_SHARED from here and the functions of kernels/ptx; they
// contain no `asm`, no `__shared__` variables and no `<<<>>>`. What is not declared for g++ in
// kernels/emu/kernel.h does not compile there: a gap is an error, never a silent difference.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define EMULATED 0
#define DEVICE __device__ __forceinline__
#define HOST_DEVICE __host__ __device__ __forceinline__

// KERNEL(name, threads per block, parameters...) { body }. The launcher may not exceed the number
// of threads; ptxas plans registers for it (and honours setmaxnreg only because of the 1).
#define KERNEL(name, threads, ...) \
    extern "C" __global__ void __launch_bounds__(threads, 1) name(__VA_ARGS__)

// The same with a number of blocks that must fit on one multiprocessor together.
#define KERNEL_MIN_BLOCKS(name, threads, min_blocks, ...) \
    extern "C" __global__ void __launch_bounds__(threads, min_blocks) name(__VA_ARGS__)

// Declares `name`, the dynamic shared memory of the launch, 1024-byte aligned (the strictest
// alignment any swizzle needs).
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

// Instructions of sm_90 exist only where sm_90 code is generated: an sm_80 build that uses one
// fails to compile instead of failing to load.
#define PTX_SM90 (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900)

// Under emulation, warp-collective wrappers end with a parameter that receives the caller's source
// line, so that lanes of one warp that meet on different lines are reported as diverged.
#define EMU_SITE
#define EMU_SITE_ONLY
#else
#define EMULATED 1
#define DEVICE inline __attribute__((always_inline))
#define HOST_DEVICE DEVICE
#define PTX_SM90 1
#define EMU_SITE , int site = __builtin_LINE()
#define EMU_SITE_ONLY int site = __builtin_LINE()
#include "../emu/kernel.h"
#endif

typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// How a kernel compiled by g++ makes itself known to the stand-in driver.
#pragma once
#include <stdint.h>

namespace emu {

// cuModuleGetFunction compares this with what nvcc compiled.
struct KernelInfo {
    const char* name;
    const char* file;
    void (*body)();
    void (*call)(void (*body)(), void** arguments);
    uint32_t threads, num_params;
    const uint32_t *sizes, *alignments;
};
void register_kernel(const KernelInfo*);

}  // namespace emu

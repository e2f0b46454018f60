// setmaxnreg (sm_90a): moves registers between warpgroups. Every warp of the warpgroup executes it;
// REGISTERS is a multiple of 8 in 24..256. ptxas ignores it (warning C7508) unless the kernel has
// launch bounds.
#pragma once
#include "compiler.cuh"

#if PTX_SM90
namespace ptx {

template <int REGISTERS>
DEVICE void release_registers(EMU_SITE_ONLY) {
    static_assert(REGISTERS >= 24 && REGISTERS <= 256 && REGISTERS % 8 == 0, "see PTX ISA");
#if EMULATED
    emu::set_max_registers(REGISTERS, false, site);
#else
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
#endif
}

template <int REGISTERS>
DEVICE void take_registers(EMU_SITE_ONLY) {
    static_assert(REGISTERS >= 24 && REGISTERS <= 256 && REGISTERS % 8 == 0, "see PTX ISA");
#if EMULATED
    emu::set_max_registers(REGISTERS, true, site);
#else
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
#endif
}

}  // namespace ptx
#endif

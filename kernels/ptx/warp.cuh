// Warp-wide instructions that CUDA C++ has no short name for. Shuffles, votes and __syncwarp are
// used under their CUDA names; a vote or shuffle orders execution, not memory.
#pragma once
#include "compiler.cuh"

namespace ptx {

constexpr u32 FULL_WARP = 0xffffffffu;

// elect.sync (sm_90): true in one lane of the warp. Which one is not promised, only that it is the
// same each time; the emulator picks by seed.
#if PTX_SM90
DEVICE bool elect_one(EMU_SITE_ONLY) {
#if EMULATED
    return emu::elect(FULL_WARP, site);
#else
    u32 elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(elected));
    return elected != 0;
#endif
}
#endif

// redux.sync (sm_80): integer reduction over the whole warp; every lane gets the result.
DEVICE u32 reduce_add(u32 value) {
#if EMULATED
    return emu::reduce(FULL_WARP, value, emu::Reduction::Add);
#else
    return __reduce_add_sync(FULL_WARP, value);
#endif
}

DEVICE u32 reduce_max(u32 value) {
#if EMULATED
    return emu::reduce(FULL_WARP, value, emu::Reduction::Max);
#else
    return __reduce_max_sync(FULL_WARP, value);
#endif
}

DEVICE u32 reduce_min(u32 value) {
#if EMULATED
    return emu::reduce(FULL_WARP, value, emu::Reduction::Min);
#else
    return __reduce_min_sync(FULL_WARP, value);
#endif
}

DEVICE u32 lane_id() {
#if EMULATED
    return emu::lane_id();
#else
    u32 lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
#endif
}

}  // namespace ptx

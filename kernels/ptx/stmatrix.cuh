// stmatrix (sm_90): the inverse of ldmatrix. Lane l gives the address of row l % 8 of matrix l / 8
// and the elements of its fragment.
#pragma once
#include "compiler.cuh"

#if PTX_SM90
namespace ptx {

DEVICE void stmatrix_x2(u32 address, const u32 (&r)[2] EMU_SITE) {
#if EMULATED
    emu::stmatrix(r, 2, false, address, site);
#else
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(address),
                 "r"(r[0]), "r"(r[1])
                 : "memory");
#endif
}

DEVICE void stmatrix_x4(u32 address, const u32 (&r)[4] EMU_SITE) {
#if EMULATED
    emu::stmatrix(r, 4, false, address, site);
#else
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
#endif
}

DEVICE void stmatrix_x4_trans(u32 address, const u32 (&r)[4] EMU_SITE) {
#if EMULATED
    emu::stmatrix(r, 4, true, address, site);
#else
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
        : "memory");
#endif
}

}  // namespace ptx
#endif

// ldmatrix (sm_75): loads 8x8 matrices of 16-bit elements from shared memory into the fragment
// layout of mma. Lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, 16-byte aligned)
// and receives of matrix i, in r[i], the elements (l / 4, 2 (l % 4)) and (l / 4, 2 (l % 4) + 1);
// the _trans forms give the transposed matrix.
#pragma once
#include "compiler.cuh"

namespace ptx {

DEVICE void ldmatrix_x1(u32 (&r)[1], u32 address EMU_SITE) {
#if EMULATED
    emu::ldmatrix(r, 1, false, address, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(address)
                 : "memory");
#endif
}

DEVICE void ldmatrix_x2(u32 (&r)[2], u32 address EMU_SITE) {
#if EMULATED
    emu::ldmatrix(r, 2, false, address, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(address)
                 : "memory");
#endif
}

DEVICE void ldmatrix_x2_trans(u32 (&r)[2], u32 address EMU_SITE) {
#if EMULATED
    emu::ldmatrix(r, 2, true, address, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(address)
                 : "memory");
#endif
}

DEVICE void ldmatrix_x4(u32 (&r)[4], u32 address EMU_SITE) {
#if EMULATED
    emu::ldmatrix(r, 4, false, address, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}

DEVICE void ldmatrix_x4_trans(u32 (&r)[4], u32 address EMU_SITE) {
#if EMULATED
    emu::ldmatrix(r, 4, true, address, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}

}  // namespace ptx

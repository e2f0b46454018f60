// mma.sync (sm_80): D (16x8, f32) += A (16x16, bf16, row major) * B (16x8, bf16, column major).
//
// Fragments, with g = lane / 4 and t = lane % 4 (PTX ISA; checked against CuTe's layouts):
//   a[0] = A[g][2t, 2t+1]   a[1] = A[g+8][2t, 2t+1]
//   a[2] = A[g][2t+8, 2t+9] a[3] = A[g+8][2t+8, 2t+9]
//   b[0] = B[2t, 2t+1][g]   b[1] = B[2t+8, 2t+9][g]
//   d[0], d[1] = D[g][2t, 2t+1]                       d[2], d[3] = D[g+8][2t, 2t+1]
// Products are exact and sums f32; in which order and with how many guard bits the hardware adds
// within one instruction is not specified, so bits of a sum are never compared with the emulator's.
#pragma once
#include "compiler.cuh"

namespace ptx {

DEVICE void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2] EMU_SITE) {
#if EMULATED
    emu::mma_m16n8k16(d, a, b, site);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

}  // namespace ptx

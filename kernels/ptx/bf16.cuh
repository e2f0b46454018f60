// bfloat16: the upper half of an f32. One type for both compilers.
#pragma once
#include "compiler.cuh"

struct bf16 {
    u16 bits;
};

// Exact.
HOST_DEVICE float to_float(bf16 x) {
    u32 bits = (u32)x.bits << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

HOST_DEVICE float to_float(float x) { return x; }

namespace ptx {

#if EMULATED
// Round to nearest, ties to even; every NaN becomes 0x7fff, as cvt.rn does.
DEVICE u32 bf16_bits(float x) {
    u32 bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
}
#endif

// cvt.rn.bf16.f32 (sm_80): round to nearest, ties to even.
DEVICE bf16 to_bf16(float x) {
    bf16 result;
#if EMULATED
    result.bits = (u16)bf16_bits(x);
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#endif
    return result;
}

// cvt.rn.bf16x2.f32 (sm_80): `low` goes to bits 0-15, the element with the smaller index.
DEVICE u32 pack_bf16x2(float low, float high) {
#if EMULATED
    return bf16_bits(low) | bf16_bits(high) << 16;
#else
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#endif
}

DEVICE float unpack_low(u32 packed) { return to_float(bf16{(u16)(packed & 0xffffu)}); }
DEVICE float unpack_high(u32 packed) { return to_float(bf16{(u16)(packed >> 16)}); }

}  // namespace ptx

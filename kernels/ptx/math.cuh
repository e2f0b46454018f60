// Approximate functions of the special function unit.
//
// The emulator returns the correctly rounded value (up to the last bit of the C library), so tests
// must allow the hardware's error: 2 ulp for ex2, 1 for rcp, about 2^-22 relative for lg2 and rsqrt
// (PTX ISA, "approx"). All flush denormals to zero on the GPU.
#pragma once
#include "compiler.cuh"

namespace ptx {

#if EMULATED
DEVICE float flush_denormal(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0.0f, x) : x; }
#endif

// 2^x.
DEVICE float exp2_approx(float x) {
#if EMULATED
    return flush_denormal(exp2f(flush_denormal(x)));
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// log2(x).
DEVICE float log2_approx(float x) {
#if EMULATED
    return log2f(flush_denormal(x));
#else
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// 1 / sqrt(x).
DEVICE float rsqrt_approx(float x) {
#if EMULATED
    return (float)(1.0 / sqrt((double)flush_denormal(x)));
#else
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// 1 / x.
DEVICE float rcp_approx(float x) {
#if EMULATED
    return flush_denormal((float)(1.0 / (double)flush_denormal(x)));
#else
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// tanh(x), relative error about 2^-11.
DEVICE float tanh_approx(float x) {
#if EMULATED
    return tanhf(x);
#else
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

}  // namespace ptx

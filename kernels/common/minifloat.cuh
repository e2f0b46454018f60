// Eight-bit codes of optimizer moments; bit for bit src/ops/adamw/codes.rs, where the map is
// described and reasoned about.
#pragma once
#include "../ptx/compiler.cuh"

// The smallest power of two that is not below `largest`, the largest magnitude of a block; at least
// 2^-100, at most 2^127. NaN unless `largest` is finite.
DEVICE float block_scale(float largest) {
    u32 bits = __float_as_uint(largest);
    if (bits >= 0x7f800000u) return __uint_as_float(0x7fffffffu);
    u32 power = (bits + 0x7fffffu) & 0x7f800000u;
    return __uint_as_float(min(max(power, 27u << 23), 254u << 23));
}

// Codes of magnitudes relative to the scale: an exponent and three bits of mantissa, the largest
// code is 1. MAX is 127 (with a sign beside it) or 255. PARTS is 2^16 over the value of code 1,
// which is 1.25 * 2^-16 or 1.25 * 2^-32.
template <u32 MAX>
struct Codes {
    static constexpr u32 BIAS = 1016 - MAX;

    DEVICE static float decode(u32 code) {
        return code == 0 ? 0.0f : __uint_as_float((code + BIAS) << 20);
    }

    // Stochastic rounding, of 16 random bits; 0 <= x.
    DEVICE static u32 encode(float x, u32 dither) {
        constexpr u32 SMALLEST = (1 + BIAS) << 20;
        u32 bits = __float_as_uint(x);
        // Below the smallest code the neighbours are 0 and 1, a linear gap of its own.
        constexpr float PARTS = MAX == 127 ? 3435973836.8f : 225179981368524.8f;
        if (bits < SMALLEST) return x * PARTS > (float)dither + 0.5f;
        u32 dithered = bits + dither * 16 + 8;
        return min((dithered >> 20) - BIAS, MAX);
    }
};

// Stochastic rounding; bit for bit src/ops/adamw/rounding.rs.
//
// A value between two neighbours goes up with probability equal to its distance from the lower one,
// in 65536ths of the gap, so that what is rounded away comes back on average.
#pragma once
#include "../ptx/bf16.cuh"
#include "philox.cuh"

// Sixteen random bits for each of eight consecutive elements; `group` is the number of the first
// element divided by eight, `value` (0 to 3) tells apart what is rounded for one element.
struct Dither {
    Words4 words;

    DEVICE Dither(u64 seed, u32 step, u64 group, u32 value)
        : words(philox(seed, STREAM_ROUNDING, (u32)group, (u32)(group >> 32) | value << 30, step)) {
    }
    DEVICE u32 operator[](int element) const {
        return words.w[element / 2] >> (element % 2 * 16) & 0xffffu;
    }
};

// Finite stays finite (beyond the largest bf16 it rounds down), infinite stays infinite, NaN NaN;
// what bf16 holds already, zeros of both signs included, stays itself.
DEVICE bf16 round_stochastic(float x, u32 dither) {
    u32 bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu;
    bool nan = magnitude > 0x7f800000u;
    if (nan) return bf16{(u16)(bits >> 16 | 0x40u)};
    u32 rounded = (bits + dither) >> 16;
    bool overflow = magnitude < 0x7f800000u && (rounded & 0x7fffu) == 0x7f80u;
    return bf16{(u16)(overflow ? rounded - 1 : rounded)};
}

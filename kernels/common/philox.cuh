// Counter-based random numbers: Philox4x32-10, the same words as src/rng.rs.
#pragma once
#include "../ptx/compiler.cuh"

// What a stream of numbers is for: the enum Stream of src/rng.rs.
constexpr u32 STREAM_SAMPLE = 2;
constexpr u32 STREAM_ROUNDING = 5;

struct Words4 {
    u32 w[4];
};

// words(seed, stream, counter) of src/rng.rs.
DEVICE Words4 philox(u64 seed, u32 stream, u32 c0, u32 c1, u32 c2) {
    Words4 c{{c0, c1, c2, stream}};
    u32 key0 = (u32)seed, key1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u64 product0 = (u64)0xD2511F53u * c.w[0], product1 = (u64)0xCD9E8D57u * c.w[2];
        c = Words4{{(u32)(product1 >> 32) ^ c.w[1] ^ key0, (u32)product1,
                    (u32)(product0 >> 32) ^ c.w[3] ^ key1, (u32)product0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// Uniform in [0, 1): 24 bits, exact in f32.
DEVICE float uniform(u32 word) { return (float)(word >> 8) * 5.9604644775390625e-8f; }

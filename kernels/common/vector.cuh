// 16 bytes at a time: four f32 or eight bf16, widened to f32 in registers.
#pragma once
#include "../ptx/bf16.cuh"
#include "../ptx/memory.cuh"

// How many elements of T fit into one 16-byte access.
template <class T>
constexpr int VECTOR = 16 / (int)sizeof(T);

// One aligned 16-byte piece of a row, as f32.
template <class T>
struct Vector {
    static constexpr int N = VECTOR<T>;
    float values[N];

    DEVICE static Vector unpack(uint4 raw) {
        u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
        Vector v;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if constexpr (sizeof(T) == 2) {
                v.values[2 * i] = ptx::unpack_low(words[i]);
                v.values[2 * i + 1] = ptx::unpack_high(words[i]);
            } else {
                v.values[i] = __uint_as_float(words[i]);
            }
        }
        return v;
    }

    DEVICE uint4 pack() const {
        u32 words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if constexpr (sizeof(T) == 2)
                words[i] = ptx::pack_bf16x2(values[2 * i], values[2 * i + 1]);
            else words[i] = __float_as_uint(values[i]);
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    }

    DEVICE static Vector load(const T* p) { return unpack(*(const uint4*)p); }
    // Read once, and not written by this kernel.
    DEVICE static Vector load_streaming(const T* p) { return unpack(ptx::load_streaming(p)); }
    DEVICE void store(T* p) const { *(uint4*)p = pack(); }
    DEVICE void store_streaming(T* p) const { ptx::store_streaming(p, pack()); }
};

// One element, for tails and unaligned rows.
DEVICE float load_element(const float* p) { return *p; }
DEVICE float load_element(const bf16* p) { return to_float(*p); }
DEVICE void store_element(float* p, float x) { *p = x; }
DEVICE void store_element(bf16* p, float x) { *p = ptx::to_bf16(x); }

// Whether rows of n elements from p on can be read in whole vectors.
template <class T>
DEVICE bool is_vectorisable(const T* p, long long n) {
    return ((size_t)p & 15) == 0 && n % VECTOR<T> == 0;
}

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

// ---- eight at a time
// --------------------------------------------------------------------------------
//
// Eight consecutive elements, of whatever type, belong to one thread: one 16-byte access of bf16 or
// two of f32 where the address allows it, else element by element. Which thread adds what in which
// order therefore depends neither on the type nor on the alignment.

// How a kernel reads: `Streaming` and `Constant` only what nobody writes while it runs.
enum class Access { Plain, Streaming, Constant };

struct Eight {
    float x[8];
};

// Eight elements as they lie in memory: fewer registers than their values.
template <class T>
struct Packed {
    uint4 pieces[sizeof(T) / 2];
};

// Exact.
template <class T>
DEVICE Eight unpack(const Packed<T>& packed) {
    Eight e;
#pragma unroll
    for (int i = 0; i < (int)sizeof(T) / 2; i++) {
        auto v = Vector<T>::unpack(packed.pieces[i]);
#pragma unroll
        for (int j = 0; j < VECTOR<T>; j++) e.x[i * VECTOR<T> + j] = v.values[j];
    }
    return e;
}

// Rounds to nearest even.
template <class T>
DEVICE Packed<T> pack(const Eight& e) {
    Packed<T> packed;
#pragma unroll
    for (int i = 0; i < (int)sizeof(T) / 2; i++) {
        Vector<T> v;
#pragma unroll
        for (int j = 0; j < VECTOR<T>; j++) v.values[j] = e.x[i * VECTOR<T> + j];
        packed.pieces[i] = v.pack();
    }
    return packed;
}

template <Access ACCESS>
DEVICE uint4 load_16(const void* p) {
    if constexpr (ACCESS == Access::Streaming) return ptx::load_streaming(p);
    if constexpr (ACCESS == Access::Constant) return ptx::load_constant(p);
    return *(const uint4*)p;
}

DEVICE bool is_aligned(const void* p, int bytes) { return ((size_t)p & (size_t)(bytes - 1)) == 0; }

// p[0], ..., p[count - 1], at most eight; zeros instead of the rest.
template <Access ACCESS, class T>
DEVICE Packed<T> load_packed(const T* p, long long count) {
    if (count >= 8 && is_aligned(p, 16)) {
        Packed<T> packed;
#pragma unroll
        for (int i = 0; i < (int)sizeof(T) / 2; i++)
            packed.pieces[i] = load_16<ACCESS>(p + i * VECTOR<T>);
        return packed;
    }
    Eight e;
#pragma unroll
    for (int i = 0; i < 8; i++) e.x[i] = i < count ? load_element(p + i) : 0.0f;
    return pack<T>(e);
}

template <Access ACCESS, class T>
DEVICE Eight load_eight(const T* p, long long count) {
    return unpack(load_packed<ACCESS>(p, count));
}

// Writes the first `count` of them, at most eight.
template <class T>
DEVICE void store_packed(T* p, const Packed<T>& packed, long long count) {
    if (count >= 8 && is_aligned(p, 16)) {
#pragma unroll
        for (int i = 0; i < (int)sizeof(T) / 2; i++)
            *(uint4*)(p + i * VECTOR<T>) = packed.pieces[i];
        return;
    }
    Eight e = unpack(packed);
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) store_element(p + i, e.x[i]);
}

template <class T>
DEVICE void store_eight(T* p, const Eight& e, long long count) {
    store_packed(p, pack<T>(e), count);
}

// The eights of a row of n elements.
HOST_DEVICE long long eights(long long n) { return (n + 7) / 8; }

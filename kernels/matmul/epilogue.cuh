// From accumulators to the output: bias, accumulation and one rounding.
//
// The accumulators pass through shared memory as f32, so that global memory is read and written in
// whole rows of the tile whatever the fragment layout.
#pragma once
#include "../common/vector.cuh"

// Four neighbouring elements of the output as one access.
struct __align__(8) Bf16x4 {
    u32 low, high;
};
DEVICE Bf16x4 pack4(const float (&v)[4], const bf16*) {
    return {ptx::pack_bf16x2(v[0], v[1]), ptx::pack_bf16x2(v[2], v[3])};
}
DEVICE float4 pack4(const float (&v)[4], const float*) {
    return make_float4(v[0], v[1], v[2], v[3]);
}
DEVICE void add4(float (&v)[4], const bf16* x) {
    Bf16x4 packed = *(const Bf16x4*)x;
    v[0] += ptx::unpack_low(packed.low);
    v[1] += ptx::unpack_high(packed.low);
    v[2] += ptx::unpack_low(packed.high);
    v[3] += ptx::unpack_high(packed.high);
}
DEVICE void add4(float (&v)[4], const float* x) {
    float4 old = *(const float4*)x;
    v[0] += old.x;
    v[1] += old.y;
    v[2] += old.z;
    v[3] += old.w;
}

// A TILE_M x TILE_N tile of f32 in shared memory. Groups of 8 columns are XORed with the row: the
// four rows that half a warp writes at once lie in different banks.
template <int TILE_N>
DEVICE int staged(int row, int column) {
    return row * TILE_N + (((column >> 3) ^ (row & 3)) << 3) + (column & 7);
}

// Writes the staged tile at (first_m, first_n) of `out` (m, n). `bias` (n) may be null.
template <int TILE_M, int TILE_N, int THREADS, class Out>
DEVICE void write_tile(Out* out, const float* tile, const bf16* bias, bool accumulate, int first_m,
                       int first_n, int m, int n) {
    const int thread = (int)threadIdx.x;
    const bool whole = n % 4 == 0 && (size_t)out % (4 * sizeof(Out)) == 0;
    if (whole) {
        constexpr int LANES = TILE_N / 4;  // threads along a row
        static_assert(THREADS % LANES == 0, "a thread keeps its columns");
        const int column = thread % LANES * 4, global_n = first_n + column;
        if (global_n >= n) return;
        float b[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (bias) {
#pragma unroll
            for (int i = 0; i < 4; i++) b[i] = load_element(bias + global_n + i);
        }
#pragma unroll 4
        for (int row = thread / LANES; row < TILE_M; row += THREADS / LANES) {
            if (first_m + row >= m) return;
            Out* to = out + (size_t)(first_m + row) * (size_t)n + global_n;
            float4 sum = *(const float4*)(tile + staged<TILE_N>(row, column));
            float v[4] = {sum.x + b[0], sum.y + b[1], sum.z + b[2], sum.w + b[3]};
            if (accumulate) add4(v, to);
            auto packed = pack4(v, to);
            *(decltype(packed)*)to = packed;
        }
    } else {
        static_assert(THREADS % TILE_N == 0, "a thread keeps its column");
        const int column = thread % TILE_N, global_n = first_n + column;
        if (global_n >= n) return;
        const float b = bias ? load_element(bias + global_n) : 0.0f;
#pragma unroll 4
        for (int row = thread / TILE_N; row < TILE_M; row += THREADS / TILE_N) {
            if (first_m + row >= m) return;
            Out* to = out + (size_t)(first_m + row) * (size_t)n + global_n;
            float v = tile[staged<TILE_N>(row, column)] + b;
            if (accumulate) v += load_element(to);
            store_element(to, v);
        }
    }
}

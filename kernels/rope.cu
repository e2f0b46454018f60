// Rotary position embedding in place; the contract is in src/ops/rope/mod.rs.
//
// A block takes a token. A thread takes eight pairs (i, i + D/2) of a head and keeps their angles
// while it goes from head to head.
#include "common/vector.cuh"

namespace {

constexpr int THREADS = 128;

// Rotates every query and key head by the angle of its row times `direction`, 1 or -1. A position
// outside 0..num_positions has no angle: the row becomes NaN, and the loss shows it.
template <class T>
DEVICE void rotate(T* qkv, const int* positions, const float* cos, const float* sin,
                   float direction, int num_positions, int num_rotated, int width, int d) {
    int half = d / 2, num_eights = (int)eights(half), lanes = min(num_eights, THREADS);
    int at_once = THREADS / lanes, first_head = (int)threadIdx.x / lanes;
    if (first_head >= at_once) return;
    T* row = qkv + (long long)blockIdx.x * width;
    int position = positions[blockIdx.x];
    bool inside = position >= 0 && position < num_positions;
    long long angles = (long long)(inside ? position : 0) * half;
    for (int i = (int)threadIdx.x % lanes; i < num_eights; i += lanes) {
        int begin = i * 8, count = half - begin;
        Eight c, s;
        if (inside) {
            c = load_eight<Access::Constant>(cos + angles + begin, count);
            s = load_eight<Access::Constant>(sin + angles + begin, count);
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++) c.x[j] = s.x[j] = __uint_as_float(0x7fffffffu);
        }
        for (int head = first_head; head < num_rotated; head += at_once) {
            T* low = row + head * d + begin;
            Eight x = load_eight<Access::Plain>(low, count);
            Eight y = load_eight<Access::Plain>(low + half, count), a, b;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float turn = s.x[j] * direction;
                a.x[j] = x.x[j] * c.x[j] - y.x[j] * turn;
                b.x[j] = y.x[j] * c.x[j] + x.x[j] * turn;
            }
            store_eight(low, a, count);
            store_eight(low + half, b, count);
        }
    }
}

}  // namespace

#define ROPE(T)                                                                         \
    KERNEL(rope_forward_##T, THREADS, T* qkv, const int* positions, const float* cos,   \
           const float* sin, int num_positions, int num_rotated, int width, int d) {    \
        rotate(qkv, positions, cos, sin, 1.0f, num_positions, num_rotated, width, d);   \
    }                                                                                   \
    KERNEL(rope_backward_##T, THREADS, T* dqkv, const int* positions, const float* cos, \
           const float* sin, int num_positions, int num_rotated, int width, int d) {    \
        rotate(dqkv, positions, cos, sin, -1.0f, num_positions, num_rotated, width, d); \
    }
using f32 = float;
ROPE(f32)
ROPE(bf16)

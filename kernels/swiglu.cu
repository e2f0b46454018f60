// SwiGLU; the contract is in src/ops/swiglu/mod.rs.
//
// A thread takes eight columns of one row. A row is covered by `tiles` blocks; block b works on row
// b / tiles.
#include "common/vector.cuh"
#include "ptx/math.cuh"

namespace {

constexpr int THREADS = 128;

// Where a thread works: the offset of its row's first element in units of F, and its first column.
struct Place {
    long long row;
    int column;

    DEVICE explicit Place(int tiles)
        : row(blockIdx.x / (unsigned)tiles),
          column((int)((blockIdx.x % (unsigned)tiles) * THREADS + threadIdx.x) * 8) {}
};

// 1 / (1 + e^-x). For x below -88 the exponential is infinite and the result 0.
DEVICE float sigmoid(float x) { return ptx::rcp_approx(1.0f + ptx::exp2_approx(-1.44269504f * x)); }

template <class T>
DEVICE void forward(T* y, const T* gate_up, int tiles, int ffn) {
    Place place(tiles);
    int count = ffn - place.column;
    if (count <= 0) return;
    const T* gates = gate_up + place.row * 2 * ffn + place.column;
    Eight gate = load_eight<Access::Streaming>(gates, count);
    Eight up = load_eight<Access::Streaming>(gates + ffn, count), out;
#pragma unroll
    for (int j = 0; j < 8; j++) out.x[j] = gate.x[j] * sigmoid(gate.x[j]) * up.x[j];
    store_eight(y + place.row * ffn + place.column, out, count);
}

template <class T>
DEVICE void backward(T* dgate_up, const T* dy, const T* gate_up, int tiles, int ffn) {
    Place place(tiles);
    int count = ffn - place.column;
    if (count <= 0) return;
    long long both = place.row * 2 * ffn + place.column;
    Eight gate = load_eight<Access::Streaming>(gate_up + both, count);
    Eight up = load_eight<Access::Streaming>(gate_up + both + ffn, count);
    Eight d = load_eight<Access::Streaming>(dy + place.row * ffn + place.column, count);
    Eight dgate, dup;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float g = gate.x[j], s = sigmoid(g);
        dgate.x[j] = d.x[j] * up.x[j] * s * (1.0f + g * (1.0f - s));
        dup.x[j] = d.x[j] * g * s;
    }
    store_eight(dgate_up + both, dgate, count);
    store_eight(dgate_up + both + ffn, dup, count);
}

}  // namespace

#define SWIGLU(T)                                                                               \
    KERNEL(swiglu_forward_##T, THREADS, T* y, const T* gate_up, int tiles, int ffn) {           \
        forward(y, gate_up, tiles, ffn);                                                        \
    }                                                                                           \
    KERNEL(swiglu_backward_##T, THREADS, T* dgate_up, const T* dy, const T* gate_up, int tiles, \
           int ffn) {                                                                           \
        backward(dgate_up, dy, gate_up, tiles, ffn);                                            \
    }
using f32 = float;
SWIGLU(f32)
SWIGLU(bf16)

// AdamW with four kinds of state; the contracts are in src/ops/adamw.
//
// A thread takes eight parameters. The arithmetic of one parameter is written with explicit
// fused multiply-adds, so that both compilers and the CPU reference (src/ops/adamw/element.rs) give
// the same bits: stochastic rounding turns one differing bit into a differing neighbour.
#include "common/minifloat.cuh"
#include "common/reduce.cuh"
#include "common/rounding.cuh"
#include "common/vector.cuh"

namespace {

constexpr int THREADS = 256;

struct Factors {
    float grad_scale, decay, one_minus_beta1, beta2, one_minus_beta2, step_size;
    float inverse_root_bias2, epsilon;
};

DEVICE void update(float& weight, float& m, float& v, float grad, const Factors& f) {
    float g = grad * f.grad_scale;
    m = fmaf(f.one_minus_beta1, fmaf(grad, f.grad_scale, -m), m);
    v = fmaf(f.one_minus_beta2, g * g, f.beta2 * v);
    float denominator = fmaf(sqrtf(v), f.inverse_root_bias2, f.epsilon);
    weight = fmaf(-f.step_size, m / denominator, weight * f.decay);
}

DEVICE void update(Eight& weight, Eight& m, Eight& v, const Eight& grad, const Factors& f) {
#pragma unroll
    for (int j = 0; j < 8; j++) update(weight.x[j], m.x[j], v.x[j], grad.x[j], f);
}

// This thread's eight of the tensor.
DEVICE long long thread_eight() { return (long long)blockIdx.x * THREADS + threadIdx.x; }

// `copy`, if there is one, receives the new weights rounded to nearest.
template <class G>
DEVICE void step(bf16* copy, float* weights, float* m, float* v, const G* grads, long long n,
                 const Factors& f) {
    long long i = thread_eight() * 8, count = n - i;
    if (count <= 0) return;
    Eight weight = load_eight<Access::Plain>(weights + i, count);
    Eight mean = load_eight<Access::Plain>(m + i, count);
    Eight square = load_eight<Access::Plain>(v + i, count);
    update(weight, mean, square, load_eight<Access::Streaming>(grads + i, count), f);
    store_eight(weights + i, weight, count);
    store_eight(m + i, mean, count);
    store_eight(v + i, square, count);
    if (copy != nullptr) store_eight(copy + i, weight, count);
}

// What rounds stochastically; `first_group` is the number of the tensor's first element over eight.
struct Rounding {
    u64 seed, first_group;
    u32 step;

    // Weights are value 0, m 1, v 2: each has bits of its own.
    DEVICE Dither dither(u32 value) const {
        return Dither(seed, step, first_group + (u64)thread_eight(), value);
    }
};

DEVICE void store_rounded(bf16* p, const Eight& e, const Dither& dither, long long count) {
    u32 bits[8];
#pragma unroll
    for (int j = 0; j < 8; j++) bits[j] = round_stochastic(e.x[j], dither[j]).bits;
    if (count >= 8 && is_aligned(p, 16)) {
        *(uint4*)p = make_uint4(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16,
                                bits[4] | bits[5] << 16, bits[6] | bits[7] << 16);
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (j < count) p[j] = bf16{(u16)bits[j]};
}

template <class G>
DEVICE void step_rounded(bf16* weights, bf16* m, bf16* v, const G* grads, long long n,
                         const Factors& f, const Rounding& rounding) {
    long long i = thread_eight() * 8, count = n - i;
    if (count <= 0) return;
    Eight weight = load_eight<Access::Plain>(weights + i, count);
    Eight mean = load_eight<Access::Plain>(m + i, count);
    Eight square = load_eight<Access::Plain>(v + i, count);
    update(weight, mean, square, load_eight<Access::Streaming>(grads + i, count), f);
    store_rounded(weights + i, weight, rounding.dither(0), count);
    store_rounded(m + i, mean, rounding.dither(1), count);
    store_rounded(v + i, square, rounding.dither(2), count);
}

// ---- eight-bit moments: a warp holds a block of 256
// -----------------------------------------------

using SignedCodes = Codes<127>;
using UnsignedCodes = Codes<255>;

struct Bytes8 {
    u32 b[8];
};

DEVICE Bytes8 load_codes(const uint8_t* p, long long count) {
    Bytes8 codes;
    if (count >= 8 && is_aligned(p, 8)) {
        uint2 raw = *(const uint2*)p;
#pragma unroll
        for (int j = 0; j < 8; j++) codes.b[j] = (j < 4 ? raw.x : raw.y) >> (j % 4 * 8) & 0xffu;
        return codes;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) codes.b[j] = j < count ? p[j] : 0;
    return codes;
}

DEVICE void store_codes(uint8_t* p, const Bytes8& codes, long long count) {
    const u32* b = codes.b;
    if (count >= 8 && is_aligned(p, 8)) {
        *(uint2*)p = make_uint2(b[0] | b[1] << 8 | b[2] << 16 | b[3] << 24,
                                b[4] | b[5] << 8 | b[6] << 16 | b[7] << 24);
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (j < count) p[j] = (uint8_t)b[j];
}

// The largest magnitude of the block, of all its lanes.
DEVICE float largest(const Eight& e) {
    float x = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) x = MaxOrNan::apply(x, fabsf(e.x[j]));
    return warp_reduce<MaxOrNan>(x);
}

template <class W, class G>
DEVICE void step_blockwise(W* weights, uint8_t* m_codes, float* m_scales, uint8_t* v_codes,
                           float* v_scales, const G* grads, long long n, const Factors& f,
                           const Rounding& rounding) {
    long long i = thread_eight() * 8, count = n - i, block = i / 256;
    if (block * 256 >= n) return;  // whole warps: the others shuffle
    bool first = threadIdx.x % 32 == 0;
    float m_scale = __shfl_sync(ptx::FULL_WARP, first ? m_scales[block] : 0.0f, 0);
    float v_scale = __shfl_sync(ptx::FULL_WARP, first ? v_scales[block] : 0.0f, 0);
    Bytes8 m = load_codes(m_codes + i, count), v = load_codes(v_codes + i, count);
    Eight mean, square, weight = load_eight<Access::Plain>(weights + i, count);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float magnitude = m_scale * SignedCodes::decode(m.b[j] & 0x7fu);
        mean.x[j] = m.b[j] & 0x80u ? -magnitude : magnitude;
        square.x[j] = v_scale * UnsignedCodes::decode(v.b[j]);
    }
    update(weight, mean, square, load_eight<Access::Streaming>(grads + i, count), f);
    // Lanes beyond the end hold zero moments, unless the factors make NaN of zeros.
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (j >= count) mean.x[j] = square.x[j] = 0;
    m_scale = block_scale(largest(mean));
    v_scale = block_scale(largest(square));
    if (first) {
        m_scales[block] = m_scale;
        v_scales[block] = v_scale;
    }
    Dither m_dither = rounding.dither(1), v_dither = rounding.dither(2);
    float m_inverse = 1.0f / m_scale, v_inverse = 1.0f / v_scale;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        u32 code = SignedCodes::encode(fabsf(mean.x[j]) * m_inverse, m_dither[j]);
        m.b[j] = code != 0 && mean.x[j] < 0 ? code | 0x80u : code;
        code = UnsignedCodes::encode(square.x[j] * v_inverse, v_dither[j]);
        // Never 0 where there was a gradient: the update would be m / epsilon.
        v.b[j] = square.x[j] != 0 || mean.x[j] != 0 ? max(code, 1u) : 0;
    }
    store_codes(m_codes + i, m, count);
    store_codes(v_codes + i, v, count);
    if constexpr (sizeof(W) == 2) store_rounded(weights + i, weight, rounding.dither(0), count);
    else store_eight(weights + i, weight, count);
}

}  // namespace

#define FACTORS                                                                               \
    float grad_scale, float decay, float one_minus_beta1, float beta2, float one_minus_beta2, \
        float step_size, float inverse_root_bias2, float epsilon
#define FACTORS_OF                                                                                 \
    Factors {                                                                                      \
        grad_scale, decay, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_root_bias2, \
            epsilon                                                                                \
    }
#define ROUNDING u64 seed, u64 first_group, u32 step_number
#define ROUNDING_OF \
    Rounding { seed, first_group, step_number }

KERNEL(adamw_step_f32, THREADS, float* weights, float* m, float* v, const float* grads, FACTORS,
       long long n) {
    step(nullptr, weights, m, v, grads, n, FACTORS_OF);
}

// adamw_master_<gradients>
#define MASTER(G)                                                                       \
    KERNEL(adamw_master_##G, THREADS, bf16* weights, float* master, float* m, float* v, \
           const G* grads, FACTORS, long long n) {                                      \
        step(weights, master, m, v, grads, n, FACTORS_OF);                              \
    }
// adamw_rounded_<gradients>
#define ROUNDED(G)                                                                               \
    KERNEL(adamw_rounded_##G, THREADS, bf16* weights, bf16* m, bf16* v, const G* grads, FACTORS, \
           ROUNDING, long long n) {                                                              \
        step_rounded(weights, m, v, grads, n, FACTORS_OF, ROUNDING_OF);                          \
    }
// adamw_blockwise_<weights>_<gradients>
#define BLOCKWISE(W, G)                                                                         \
    KERNEL(adamw_blockwise_##W##_##G, THREADS, W* weights, uint8_t* m_codes, float* m_scales,   \
           uint8_t* v_codes, float* v_scales, const G* grads, FACTORS, ROUNDING, long long n) { \
        step_blockwise(weights, m_codes, m_scales, v_codes, v_scales, grads, n, FACTORS_OF,     \
                       ROUNDING_OF);                                                            \
    }
using f32 = float;
MASTER(f32)
MASTER(bf16)
ROUNDED(f32)
ROUNDED(bf16)
BLOCKWISE(f32, f32)
BLOCKWISE(bf16, f32)
BLOCKWISE(bf16, bf16)

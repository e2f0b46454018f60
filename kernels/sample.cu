// Choice of the next token from its logits, a block per row: what src/ops/sample/cpu.rs does with a
// sorted vocabulary, without sorting it.
//
// Greedy takes the maximum. Top-k, top-p and the draw all ask the same question: which token is the
// first, likeliest first and equals in the order of their ids, at which a running sum of weights
// (or of ones) reaches a target? The answer is found digit by digit of the logit's bits, from sums
// per digit value. Weights are integers, so no order of adding matters: the same bits in every run.
#include "common/philox.cuh"
#include "ptx/bf16.cuh"
#include "ptx/warp.cuh"

namespace {

// A warp per value of a digit.
constexpr int THREADS = 512, DIGIT_BITS = 4, DIGITS = 1 << DIGIT_BITS;
static_assert(DIGITS == THREADS / 32, "one warp sums one digit value");

// Dynamic shared memory: a column of sums per thread, the sums of all threads, and a scratch word
// per warp.
struct Shared {
    u64 bins[DIGITS][THREADS];
    u64 totals[DIGITS];
    u64 words[THREADS / 32];
    int counts[THREADS];
};

// Bits of a logit that tell it from others, and the integer with the same order (-0 before +0, a
// NaN above everything).
template <class T>
constexpr int KEY_BITS = sizeof(T) * 8;

DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE u32 bits_of(bf16 x) { return x.bits; }

template <class T>
DEVICE u32 order_key(T x) {
    if (to_float(x) != to_float(x)) return 0xffffffffu >> (32 - KEY_BITS<T>);
    constexpr u32 SIGN = 1u << (KEY_BITS<T> - 1);
    u32 bits = bits_of(x);
    return bits & SIGN ? ~bits & (SIGN - 1) : bits | SIGN;
}

template <class T>
DEVICE float value_of(u32 key) {
    constexpr u32 SIGN = 1u << (KEY_BITS<T> - 1);
    u32 bits = key & SIGN ? key & (SIGN - 1) : ~key;
    return __uint_as_float(bits << (32 - KEY_BITS<T>));
}

// e^((x - max) / temperature), the likeliest token having 2^44: up to 2^19 tokens sum up to less
// than 2^63, and a weight is good to 2^-45 of the largest.
struct Weigher {
    double maximum, temperature;

    DEVICE u64 weight(float x) const {
        return (u64)(exp(((double)x - maximum) / temperature) * 17592186044416.0 + 0.5);
    }
};

template <class T>
struct Row {
    const T* logits;
    int num_tokens;
    Shared* shared;
    Weigher weigher;

    // The sum over the block; every thread gets it.
    DEVICE u64 block_sum(u64 x) const {
        for (int distance = 16; distance > 0; distance /= 2) {
            x += __shfl_xor_sync(ptx::FULL_WARP, x, distance);
        }
        __syncthreads();
        if (threadIdx.x % 32 == 0) shared->words[threadIdx.x / 32] = x;
        __syncthreads();
        u64 sum = 0;
        for (int w = 0; w < THREADS / 32; w++) sum += shared->words[w];
        return sum;
    }

    DEVICE u64 block_max(u64 x) const {
        for (int distance = 16; distance > 0; distance /= 2) {
            u64 other = __shfl_xor_sync(ptx::FULL_WARP, x, distance);
            x = other > x ? other : x;
        }
        __syncthreads();
        if (threadIdx.x % 32 == 0) shared->words[threadIdx.x / 32] = x;
        __syncthreads();
        u64 maximum = 0;
        for (int w = 0; w < THREADS / 32; w++) {
            maximum = shared->words[w] > maximum ? shared->words[w] : maximum;
        }
        return maximum;
    }

    // The largest key and the smallest id that has it.
    DEVICE void best(u32& key, int& id) const {
        u64 best = 0;
        for (int i = threadIdx.x; i < num_tokens; i += THREADS) {
            u64 candidate = (u64)order_key(logits[i]) << 32 | (0xffffffffu - (u32)i);
            best = candidate > best ? candidate : best;
        }
        best = block_max(best);
        key = (u32)(best >> 32);
        id = (int)(0xffffffffu - (u32)best);
    }

    // A place in the sorted vocabulary: the token number `tie` (in the order of ids) among those
    // with this key, and the sums before the first of them and up to this one.
    struct Place {
        u32 key;
        u64 tie, before, inclusive;
    };

    // Where the running sum first reaches `target`, which is at least 1 and at most the sum of all.
    template <bool WEIGHTED>
    DEVICE Place find(u64 target) const {
        auto measure = [&](float x) { return WEIGHTED ? weigher.weight(x) : 1; };
        u64 prefix = 0, before = 0;
        for (int shift = KEY_BITS<T> - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
            for (int digit = 0; digit < DIGITS; digit++) shared->bins[digit][threadIdx.x] = 0;
            for (int i = threadIdx.x; i < num_tokens; i += THREADS) {
                u64 key = order_key(logits[i]);
                if (key >> (shift + DIGIT_BITS) == prefix) {
                    shared->bins[key >> shift & (DIGITS - 1)][threadIdx.x] +=
                        measure(to_float(logits[i]));
                }
            }
            __syncthreads();
            int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
            u64 sum = 0;
            for (int i = lane; i < THREADS; i += 32) sum += shared->bins[warp][i];
            for (int distance = 16; distance > 0; distance /= 2) {
                sum += __shfl_xor_sync(ptx::FULL_WARP, sum, distance);
            }
            if (lane == 0) shared->totals[warp] = sum;
            __syncthreads();
            int digit = DIGITS - 1;
            while (digit > 0 && before + shared->totals[digit] < target) {
                before += shared->totals[digit--];
            }
            prefix = prefix << DIGIT_BITS | (u64)digit;
        }
        u32 key = (u32)prefix;
        u64 each = measure(value_of<T>(key)), tie = (target - before - 1) / each;
        return {key, tie, before, before + (tie + 1) * each};
    }

    // The sum of the weights of all tokens up to a place that was found by counting.
    DEVICE u64 weight_until(const Place& place) const {
        u64 sum = 0;
        for (int i = threadIdx.x; i < num_tokens; i += THREADS) {
            if (order_key(logits[i]) > place.key) sum += weigher.weight(to_float(logits[i]));
        }
        return block_sum(sum) + (place.tie + 1) * weigher.weight(value_of<T>(place.key));
    }

    // The id at a place, in the thread that finds it; -1 in the others.
    DEVICE int id_of(const Place& place) const {
        int share = (num_tokens + THREADS - 1) / THREADS;
        int begin = min((int)threadIdx.x * share, num_tokens), end = min(begin + share, num_tokens);
        int count = 0;
        for (int i = begin; i < end; i++) count += order_key(logits[i]) == place.key;
        shared->counts[threadIdx.x] = count;
        __syncthreads();
        u64 before = 0;
        for (int i = 0; i < (int)threadIdx.x; i++) before += (u64)shared->counts[i];
        if (place.tie < before || place.tie >= before + (u64)count) return -1;
        for (int i = begin; i < end; i++) {
            if (order_key(logits[i]) == place.key && before++ == place.tie) return i;
        }
        return -1;
    }
};

DEVICE double double_of(u64 bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

template <class T>
DEVICE void sample(int* ids, const T* logits, u64 seed, u64 temperature_bits, u64 top_p_bits,
                   u32 first_row, u32 position, int row_length, int num_tokens, int top_k) {
    DYNAMIC_SHARED(memory);
    double temperature = double_of(temperature_bits), top_p = double_of(top_p_bits);
    Row<T> row{logits + (long long)blockIdx.x * row_length, num_tokens, (Shared*)memory, {}};
    u32 best_key;
    int best_id;
    row.best(best_key, best_id);
    float maximum = value_of<T>(best_key);
    bool valid = maximum < INFINITY && maximum > -INFINITY;  // neither is NaN
    if (!valid || temperature == 0 || top_k == 1) {
        if (threadIdx.x == 0) ids[blockIdx.x] = valid ? best_id : -1;
        return;
    }
    row.weigher = {(double)maximum, temperature};
    int kept = top_k > 0 && top_k < num_tokens ? top_k : num_tokens;
    u64 total = row.weight_until(row.template find<false>((u64)kept));
    if (top_p < 1) {
        double target = ceil(top_p * (double)total);
        u64 least = target < 1 ? 1 : (u64)target;
        total = row.template find<true>(least < total ? least : total).inclusive;
    }
    Words4 random = philox(seed, STREAM_SAMPLE, first_row + blockIdx.x, position, 0);
    // 53 random bits times the total, without rounding.
    u64 uniform = ((u64)random.w[0] << 32 | random.w[1]) >> 11;
    u64 drawn = (u64)((unsigned __int128)uniform * total >> 53);
    int id = row.id_of(row.template find<true>(drawn + 1));
    if (id >= 0) ids[blockIdx.x] = id;
}

}  // namespace

// Grid: a block per row. `temperature` and `top_p` are the bits of an f64.
#define SAMPLE(dtype, T)                                                                  \
    KERNEL(sample_##dtype, THREADS, int* ids, const T* logits, unsigned long long seed,   \
           unsigned long long temperature, unsigned long long top_p, unsigned first_row,  \
           unsigned position, int row_length, int num_tokens, int top_k) {                \
        sample<T>(ids, logits, seed, temperature, top_p, first_row, position, row_length, \
                  num_tokens, top_k);                                                     \
    }

SAMPLE(bf16, bf16)
SAMPLE(f32, float)

// Cross-entropy over the vocabulary, and its gradient in place of the logits. One block per row.
//
//   loss = ln sum_v exp(x_v) - x_target          gradient = scale * (softmax(x) - onehot(target))
//
// Each thread keeps a running maximum and the sum of exponentials below it (one pass over the row,
// whatever the size of the logits), the block combines them in a fixed order. The target's own term
// stays out of the sum until the end: where the model is right, 1 - p is then a quotient of
// positive numbers and not a difference of nearly equal ones. The second pass walks the row
// backwards, from what the second-level cache still holds.
//
// A row whose target is IGNORE has loss 0 and gradient 0 and is not read. Targets come from the
// host, which checks them; one outside the vocabulary gives NaN in the loss and in the whole row.
#include "common/vector.cuh"
#include "ptx/math.cuh"

constexpr int THREADS = 1024;  // at most; short rows are launched with fewer
constexpr int IGNORE = -1;

DEVICE float infinity() { return __uint_as_float(0x7f800000u); }
DEVICE float not_a_number() { return __uint_as_float(0x7fffffffu); }

// e^x. The argument is a difference already: folding the product into it as x * log2(e) - m *
// log2(e) would lose the low digits of large logits.
DEVICE float exponential(float x) { return ptx::exp2_approx(x * 1.4426950408889634f); }

// How a row falls into aligned vectors: [0, head), then `vectors` of them, then [tail, vocab).
struct Cut {
    int head, vectors, tail;
};

template <class T>
DEVICE Cut cut_row(const T* row, int vocab) {
    constexpr int WIDTH = VECTOR<T>;
    int head = (int)((16 - (size_t)row % 16) % 16 / sizeof(T));
    head = min(head, vocab);
    int vectors = (vocab - head) / WIDTH;
    return {head, vectors, head + vectors * WIDTH};
}

// The largest value seen, and the sum of exp(value - max) over all of them.
struct Online {
    float max, sum;
};

// What to subtract: with nothing but -inf seen, 0 keeps exp(-inf - max) at 0 and lets NaN through.
DEVICE float reference_of(float max) { return max == -infinity() ? 0.0f : max; }

template <int N>
DEVICE void add(Online& total, const float (&v)[N]) {
    float max = total.max;
#pragma unroll
    for (int i = 0; i < N; i++) max = fmaxf(max, v[i]);  // fmaxf passes over NaN
    const float reference = reference_of(max);
    float sum = total.sum * exponential(total.max - reference);
#pragma unroll
    for (int i = 0; i < N; i++) sum += exponential(v[i] - reference);
    total = {max, sum};
}

DEVICE Online combine(Online a, Online b) {
    const float max = fmaxf(a.max, b.max), reference = reference_of(max);
    return {max, a.sum * exponential(a.max - reference) + b.sum * exponential(b.max - reference)};
}

DEVICE Online combine_warp(Online x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        Online other = {__shfl_xor_sync(0xffffffffu, x.max, distance),
                        __shfl_xor_sync(0xffffffffu, x.sum, distance)};
        x = combine(x, other);
    }
    return x;
}

// The same value in every thread. `slots` has room for 32.
DEVICE Online combine_block(Online x, Online* slots) {
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    x = combine_warp(x);
    if (lane == 0) slots[warp] = x;
    __syncthreads();  // all warps' values
    const Online nothing = {-infinity(), 0.0f};
    return combine_warp(lane < (int)blockDim.x / 32 ? slots[lane] : nothing);
}

// All logits of the row but the target's.
template <class T>
DEVICE Online others_of(const T* row, Cut cut, int vocab, int target) {
    constexpr int WIDTH = VECTOR<T>;
    Online total = {-infinity(), 0.0f};
    const int thread = (int)threadIdx.x, threads = (int)blockDim.x;
    for (int i = thread; i < cut.head + vocab - cut.tail; i += threads) {
        const int v = i < cut.head ? i : cut.tail + i - cut.head;
        const float one[1] = {load_element(row + v)};
        if (v != target) add(total, one);
    }
    const T* const vectors = row + cut.head;
#pragma unroll 2
    for (int i = thread; i < cut.vectors; i += threads) {
        Vector<T> x = Vector<T>::load(vectors + i * WIDTH);
        const int skip = target - cut.head - i * WIDTH;
        if (skip >= 0 && skip < WIDTH) {
#pragma unroll
            for (int j = 0; j < WIDTH; j++) x.values[j] = j == skip ? -infinity() : x.values[j];
        }
        add(total, x.values);
    }
    return total;
}

template <class T>
DEVICE void fill_row(T* row, Cut cut, int vocab, float value) {
    constexpr int WIDTH = VECTOR<T>;
    const int thread = (int)threadIdx.x, threads = (int)blockDim.x;
    for (int i = thread; i < cut.head + vocab - cut.tail; i += threads) {
        store_element(row + (i < cut.head ? i : cut.tail + i - cut.head), value);
    }
    Vector<T> x;
#pragma unroll
    for (int j = 0; j < WIDTH; j++) x.values[j] = value;
    T* const vectors = row + cut.head;
    for (int i = thread; i < cut.vectors; i += threads) x.store(vectors + i * WIDTH);
}

// The gradient of every logit but the target's: exp(x - max) * factor.
template <class T>
DEVICE void scale_row(T* row, Cut cut, int vocab, int target, float max, float factor) {
    constexpr int WIDTH = VECTOR<T>;
    const int thread = (int)threadIdx.x, threads = (int)blockDim.x;
    for (int i = thread; i < cut.head + vocab - cut.tail; i += threads) {
        const int v = i < cut.head ? i : cut.tail + i - cut.head;
        if (v != target) store_element(row + v, exponential(load_element(row + v) - max) * factor);
    }
    T* const vectors = row + cut.head;
    // This thread's last vector first.
    const int rounds = (cut.vectors - thread + threads - 1) / threads;
#pragma unroll 2
    for (int round = rounds - 1; round >= 0; round--) {
        const int i = thread + round * threads;
        Vector<T> x = Vector<T>::load(vectors + i * WIDTH);
#pragma unroll
        for (int j = 0; j < WIDTH; j++) x.values[j] = exponential(x.values[j] - max) * factor;
        x.store(vectors + i * WIDTH);
    }
}

// `logits` is written only if `write`.
template <class T>
DEVICE void cross_entropy(float* losses, T* logits, const int* targets, float scale, int vocab,
                          bool write) {
    DYNAMIC_SHARED(bytes);
    T* const row = logits + (size_t)blockIdx.x * (size_t)vocab;
    const int target = targets[blockIdx.x];
    const Cut cut = cut_row(row, vocab);
    if (target < 0 || target >= vocab) {
        const float value = target == IGNORE ? 0.0f : not_a_number();
        if (threadIdx.x == 0) losses[blockIdx.x] = value;
        if (write) fill_row(row, cut, vocab, value);
        return;
    }
    const float target_logit = load_element(row + target);
    const Online others = combine_block(others_of(row, cut, vocab, target), (Online*)bytes);
    const float max = fmaxf(others.max, target_logit);
    const float rest = others.sum * exponential(others.max - max);
    const float own = exponential(target_logit - max);
    // own - 1 is exact, and 0 if the target is the largest: a tiny rest is then not lost in 1 +
    // rest.
    if (threadIdx.x == 0) losses[blockIdx.x] = log1pf(rest + (own - 1.0f)) - (target_logit - max);
    if (!write) return;
    const float total = rest + own;
    // Every thread has read target_logit before the barrier in combine_block.
    scale_row(row, cut, vocab, target, max, scale / total);
    // The thread that owns the target's vector wrote a softmax there; the same thread replaces it.
    const int inside = target - cut.head;
    const bool in_vector = inside >= 0 && target < cut.tail;
    const int owner = in_vector ? inside / VECTOR<T> % (int)blockDim.x : 0;
    if ((int)threadIdx.x == owner) store_element(row + target, -scale * (rest / total));
}

KERNEL(cross_entropy_forward_bf16, THREADS, float* losses, const bf16* logits, const int* targets,
       int vocab) {
    cross_entropy(losses, (bf16*)logits, targets, 0.0f, vocab, false);
}

KERNEL(cross_entropy_forward_f32, THREADS, float* losses, const float* logits, const int* targets,
       int vocab) {
    cross_entropy(losses, (float*)logits, targets, 0.0f, vocab, false);
}

KERNEL(cross_entropy_forward_backward_bf16, THREADS, float* losses, bf16* logits,
       const int* targets, float scale, int vocab) {
    cross_entropy(losses, logits, targets, scale, vocab, true);
}

KERNEL(cross_entropy_forward_backward_f32, THREADS, float* losses, float* logits,
       const int* targets, float scale, int vocab) {
    cross_entropy(losses, logits, targets, scale, vocab, true);
}

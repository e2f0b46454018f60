// Token embedding: rows gathered forward, gradients added to them backward.
//
// Backward without atomics: positions are cut into chunks, each sorted by (token, position) by one
// block; then one block per distinct token and 128 columns walks the token's runs through all
// chunks. The additions to a row happen in the order of positions, as in a plain loop over them, so
// the bits are those of that loop.
//
// Ids come from the host, which checks them. One outside the vocabulary must still not reach
// foreign memory: its row becomes NaN forward and is left out backward.
#include "common/vector.cuh"

constexpr int THREADS = 128;
constexpr int SORT_THREADS = 512;

DEVICE float not_a_number() { return __uint_as_float(0x7fffffffu); }

// out (T, C) = weight[tokens[t]]; one block per position.
template <class T>
DEVICE void gather(T* out, const int* tokens, const T* weight, int vocab_size, int width) {
    const int token = tokens[blockIdx.x];
    T* const to = out + (size_t)blockIdx.x * (size_t)width;
    if (token < 0 || token >= vocab_size) {
        for (int i = (int)threadIdx.x; i < width; i += THREADS) {
            store_element(to + i, not_a_number());
        }
        return;
    }
    const T* const from = weight + (size_t)token * (size_t)width;
    if (is_vectorisable(to, width) && is_vectorisable(from, width)) {
        for (int i = (int)threadIdx.x; i < width / VECTOR<T>; i += THREADS) {
            ((uint4*)to)[i] = ptx::load_constant((const uint4*)from + i);
        }
    } else {
        for (int i = (int)threadIdx.x; i < width; i += THREADS) to[i] = from[i];
    }
}

KERNEL(embedding_forward_bf16, THREADS, bf16* out, const int* tokens, const bf16* weight,
       int vocab_size, int width) {
    gather(out, tokens, weight, vocab_size, width);
}

KERNEL(embedding_forward_f32, THREADS, float* out, const int* tokens, const float* weight,
       int vocab_size, int width) {
    gather(out, tokens, weight, vocab_size, width);
}

// A key sorts by token, then by position within the chunk. Padding sorts behind every token.
constexpr u64 PADDING = ~(u64)0;
DEVICE u32 token_of(u64 key) { return (u32)(key >> 32); }
DEVICE int position_of(u64 key) { return (int)(u32)key; }

// order (T): the keys of each chunk of positions, sorted. One block per chunk; 8 bytes of shared
// memory for each of its positions, rounded up to a power of two. Bitonic: keys differ, so the
// result is unique.
KERNEL(embedding_sort, SORT_THREADS, u64* order, const int* tokens, int num_tokens,
       int chunk_size) {
    DYNAMIC_SHARED(sorting);
    u64* const keys = (u64*)sorting;
    const int first = (int)blockIdx.x * chunk_size, count = min(num_tokens - first, chunk_size);
    int size = 1;
    while (size < count) size *= 2;
    for (int i = (int)threadIdx.x; i < size; i += SORT_THREADS) {
        keys[i] = i < count ? (u64)(u32)tokens[first + i] << 32 | (u32)i : PADDING;
    }
    for (int run = 2; run <= size; run *= 2) {
        for (int distance = run / 2; distance > 0; distance /= 2) {
            __syncthreads();  // the step before is complete
            for (int pair = (int)threadIdx.x; pair < size / 2; pair += SORT_THREADS) {
                int low = pair / distance * 2 * distance + pair % distance;
                int high = low + distance;
                bool ascending = (low & run) == 0;
                u64 a = keys[low], b = keys[high];
                if ((a > b) == ascending) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
        }
    }
    __syncthreads();  // sorted
    for (int i = (int)threadIdx.x; i < count; i += SORT_THREADS) order[first + i] = keys[i];
}

// The first index in [0, count) whose token is not less than `token`.
DEVICE int lower_bound(const u64* keys, int count, u32 token) {
    int low = 0;
    while (low < count) {
        int middle = low + (count - low) / 2;
        if (token_of(keys[middle]) < token) low = middle + 1;
        else count = middle;
    }
    return low;
}

// A token's run in one chunk.
struct Run {
    int begin, count;
};

// dweight (V, C) += the rows of dout (T, C) of each token, summed in f32 and rounded once. Grid:
// (T, columns / THREADS); the block of a token's first key does its work, the others leave at once.
template <class Sum, class T>
DEVICE void scatter(Sum* dweight, const T* dout, const u64* order, int num_tokens, int chunk_size,
                    int vocab_size, int width) {
    DYNAMIC_SHARED(bytes);
    Run* const runs = (Run*)bytes;  // THREADS of them
    const int index = (int)blockIdx.x, thread = (int)threadIdx.x;
    const int own_chunk = index / chunk_size;
    const u32 token = token_of(order[index]);
    // The key before has the same token: some block before this one does the work, or, if it is the
    // last key of the chunk before, that chunk does.
    const bool first_of_run = index == 0 || token_of(order[index - 1]) != token;
    if (!first_of_run || token >= (u32)vocab_size) return;

    // The token's first chunk owns it.
    bool seen = false;
    for (int chunk = thread; chunk < own_chunk; chunk += THREADS) {
        const u64* keys = order + (size_t)chunk * chunk_size;
        int at = lower_bound(keys, chunk_size, token);
        seen = seen || (at < chunk_size && token_of(keys[at]) == token);
    }
    runs[thread].count = seen;
    __syncthreads();  // all threads' findings
    for (int i = 0; i < min(own_chunk, THREADS); i++) seen = seen || runs[i].count != 0;
    if (seen) return;

    const int column = (int)blockIdx.y * THREADS + thread;
    const bool active = column < width;
    Sum* const target = dweight + (size_t)token * (size_t)width + column;
    float sum = active ? load_element(target) : 0.0f;
    const int chunks = (num_tokens + chunk_size - 1) / chunk_size;
    for (int base = own_chunk; base < chunks; base += THREADS) {
        __syncthreads();  // the runs of the round before have been read
        const int chunk = base + thread;
        if (chunk < chunks) {
            const u64* keys = order + (size_t)chunk * chunk_size;
            const int count = min(num_tokens - chunk * chunk_size, chunk_size);
            const int begin = lower_bound(keys, count, token);
            runs[thread] = {begin, lower_bound(keys, count, token + 1) - begin};
        }
        __syncthreads();  // all runs of this round
        if (!active) continue;
        for (int i = 0; i < min(chunks - base, THREADS); i++) {
            const size_t first = (size_t)(base + i) * chunk_size;
            const u64* keys = order + first + runs[i].begin;
#pragma unroll 8
            for (int j = 0; j < runs[i].count; j++) {
                size_t row = first + (size_t)position_of(keys[j]);
                sum += load_element(dout + row * (size_t)width + column);
            }
        }
    }
    if (active) store_element(target, sum);
}

// The types of dout and of dweight.
KERNEL(embedding_backward_bf16_f32, THREADS, float* dweight, const bf16* dout, const u64* order,
       int num_tokens, int chunk_size, int vocab_size, int width) {
    scatter(dweight, dout, order, num_tokens, chunk_size, vocab_size, width);
}

KERNEL(embedding_backward_bf16_bf16, THREADS, bf16* dweight, const bf16* dout, const u64* order,
       int num_tokens, int chunk_size, int vocab_size, int width) {
    scatter(dweight, dout, order, num_tokens, chunk_size, vocab_size, width);
}

KERNEL(embedding_backward_f32_f32, THREADS, float* dweight, const float* dout, const u64* order,
       int num_tokens, int chunk_size, int vocab_size, int width) {
    scatter(dweight, dout, order, num_tokens, chunk_size, vocab_size, width);
}

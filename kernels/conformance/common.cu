// Conformance of kernels/common: vectors, block reductions and Philox.
#include "../common/philox.cuh"
#include "../common/reduce.cuh"
#include "../common/vector.cuh"

// y = 2 x for n elements, in vectors if `n` allows it.
template <class T>
DEVICE void twice(T* y, const T* x, int n) {
    constexpr int N = VECTOR<T>;
    if (is_vectorisable(x, n)) {
        for (int i = (int)threadIdx.x * N; i < n; i += 64 * N) {
            auto v = Vector<T>::load_streaming(x + i);
            for (int j = 0; j < N; j++) v.values[j] *= 2;
            v.store_streaming(y + i);
        }
    } else {
        for (int i = (int)threadIdx.x; i < n; i += 64)
            store_element(y + i, 2 * load_element(x + i));
    }
}
KERNEL(conform_twice_f32, 64, float* y, const float* x, int n) { twice(y, x, n); }
KERNEL(conform_twice_bf16, 64, bf16* y, const bf16* x, int n) { twice(y, x, n); }

// Sum and maximum of 128 values, twice in a row through the same scratch.
KERNEL(conform_reduce, 128, float* out, const float* in) {
    DYNAMIC_SHARED(shared);
    float x = in[threadIdx.x];
    float sum = block_reduce<Add, 128>(x, (float*)shared);
    float largest = block_reduce<Max, 128>(x, (float*)shared);
    out[threadIdx.x] = sum;
    out[128 + threadIdx.x] = largest;
}

KERNEL(conform_philox, 64, u32* out, int seed, int stream) {
    u64 wide = (u64)(u32)seed << 32 | (u32)~seed;
    Words4 words = philox(wide, (u32)stream, threadIdx.x, 7, 0xffffffffu);
    for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = words.w[i];
}

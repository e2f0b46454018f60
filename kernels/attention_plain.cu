// Attention in f32, from its definition: a thread per row, any head size, no tiles. Slow; what the
// bf16 kernels are held against on the device, and what small f32 models run on.
// Contract, layout and reference: src/ops/attention.
#include "common/documents.cuh"

namespace {

DEVICE float dot(const float* x, const float* y, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum = fmaf(x[i], y[i], sum);
    return sum;
}

DEVICE void add(float* sum, float factor, const float* x, int n) {
    for (int i = 0; i < n; i++) sum[i] = fmaf(factor, x[i], sum[i]);
}

DEVICE void set(float* x, float value, int n) {
    for (int i = 0; i < n; i++) x[i] = value;
}

// One query against keys whose rows are `stride` apart; returns the log-sum-exp of its scores.
DEVICE float attend(float* out, const float* q, const float* k, const float* v, long long stride,
                    int num_keys, float scale, int head_dim) {
    float top = -INFINITY, total = 0;
    for (int j = 0; j < num_keys; j++) {
        top = fmaxf(top, scale * dot(q, k + j * stride, head_dim));
    }
    float base = top == -INFINITY ? 0 : top;
    set(out, 0, head_dim);
    for (int j = 0; j < num_keys; j++) {
        float p = expf(scale * dot(q, k + j * stride, head_dim) - base);
        total += p;
        add(out, p, v + j * stride, head_dim);
    }
    float inverse = total == 0 ? 0 : 1 / total;
    for (int i = 0; i < head_dim; i++) out[i] *= inverse;
    return total == 0 ? -INFINITY : base + logf(total);
}

// Where the rows of one head are. Query heads h of a group share a key and a value head.
struct Rows {
    const float *dout, *qkv, *out, *lse;
    int num_heads, num_kv_heads, head_dim;

    DEVICE int group() const { return num_heads / num_kv_heads; }
    DEVICE long long width() const { return (long long)(num_heads + 2 * num_kv_heads) * head_dim; }
    DEVICE long long at_q(int t, int h) const { return t * width() + h * head_dim; }
    DEVICE long long at_k(int t, int g) const { return at_q(t, num_heads + g); }
    DEVICE long long at_v(int t, int g) const { return at_q(t, num_heads + num_kv_heads + g); }
    DEVICE long long at_stat(int t, int h) const { return (long long)t * num_heads + h; }

    // Probability of key j for query t, and the gradient of its score.
    DEVICE float2 score_gradient(int t, int h, int j, float scale) const {
        int g = h / group();
        const float* d = dout + at_stat(t, h) * head_dim;
        float lse_row = lse[at_stat(t, h)];
        float score = scale * dot(qkv + at_q(t, h), qkv + at_k(j, g), head_dim);
        float p = lse_row == -INFINITY ? 0 : expf(score - lse_row);
        float dp = dot(d, qkv + at_v(j, g), head_dim);
        float delta = dot(d, out + at_stat(t, h) * head_dim, head_dim);
        return make_float2(p, p * (dp - delta));
    }
};

}  // namespace

// Grids: a thread per token and query head, or (the gradients of keys) key head.

KERNEL(attention_forward_f32, 128, float* out, float* lse, const float* qkv, const int* cu_seqlens,
       float scale, int num_tokens, int num_documents, int num_heads, int num_kv_heads,
       int head_dim) {
    long long row = blockIdx.x * 128ll + threadIdx.x;
    if (row >= (long long)num_tokens * num_heads) return;
    int t = (int)(row / num_heads), h = (int)(row % num_heads);
    Rows rows{nullptr, qkv, out, lse, num_heads, num_kv_heads, head_dim};
    DocumentTile document = find_document(cu_seqlens, num_documents, num_tokens, t);
    int g = h / rows.group();
    lse[row] = attend(out + row * head_dim, qkv + rows.at_q(t, h),
                      qkv + rows.at_k(document.begin, g), qkv + rows.at_v(document.begin, g),
                      rows.width(), document.first + 1, scale, head_dim);
}

KERNEL(attention_backward_queries_f32, 128, float* dqkv, const float* dout, const float* qkv,
       const float* out, const float* lse, const int* cu_seqlens, float scale, int num_tokens,
       int num_documents, int num_heads, int num_kv_heads, int head_dim) {
    long long row = blockIdx.x * 128ll + threadIdx.x;
    if (row >= (long long)num_tokens * num_heads) return;
    int t = (int)(row / num_heads), h = (int)(row % num_heads);
    Rows rows{dout, qkv, out, lse, num_heads, num_kv_heads, head_dim};
    DocumentTile document = find_document(cu_seqlens, num_documents, num_tokens, t);
    float* dq = dqkv + rows.at_q(t, h);
    set(dq, 0, head_dim);
    for (int j = document.begin; j <= t; j++) {
        float ds = rows.score_gradient(t, h, j, scale).y;
        add(dq, scale * ds, qkv + rows.at_k(j, h / rows.group()), head_dim);
    }
}

KERNEL(attention_backward_keys_f32, 128, float* dqkv, const float* dout, const float* qkv,
       const float* out, const float* lse, const int* cu_seqlens, float scale, int num_tokens,
       int num_documents, int num_heads, int num_kv_heads, int head_dim) {
    long long row = blockIdx.x * 128ll + threadIdx.x;
    if (row >= (long long)num_tokens * num_kv_heads) return;
    int j = (int)(row / num_kv_heads), g = (int)(row % num_kv_heads);
    Rows rows{dout, qkv, out, lse, num_heads, num_kv_heads, head_dim};
    DocumentTile document = find_document(cu_seqlens, num_documents, num_tokens, j);
    float *dk = dqkv + rows.at_k(j, g), *dv = dqkv + rows.at_v(j, g);
    set(dk, 0, head_dim);
    set(dv, 0, head_dim);
    for (int h = g * rows.group(); h < (g + 1) * rows.group(); h++) {
        for (int t = j; t < document.end; t++) {
            float2 p = rows.score_gradient(t, h, j, scale);
            add(dk, scale * p.y, qkv + rows.at_q(t, h), head_dim);
            add(dv, p.x, dout + rows.at_stat(t, h) * head_dim, head_dim);
        }
    }
}

// A thread per sequence and query head. A length outside 1 ..= capacity gives NaN.
KERNEL(attention_decode_f32, 128, float* out, const float* qkv, const float* k_cache,
       const float* v_cache, const int* lengths, float scale, int batch, int capacity,
       int num_heads, int num_kv_heads, int head_dim) {
    long long row = blockIdx.x * 128ll + threadIdx.x;
    if (row >= (long long)batch * num_heads) return;
    int b = (int)(row / num_heads), h = (int)(row % num_heads);
    int length = lengths[b], g = h / (num_heads / num_kv_heads);
    if (length < 1 || length > capacity) {
        set(out + row * head_dim, NAN, head_dim);
        return;
    }
    long long stride = (long long)num_kv_heads * head_dim;
    long long first = b * capacity * stride + g * head_dim;
    Rows rows{nullptr, qkv, out, nullptr, num_heads, num_kv_heads, head_dim};
    attend(out + row * head_dim, qkv + rows.at_q(b, h), k_cache + first, v_cache + first, stride,
           length, scale, head_dim);
}

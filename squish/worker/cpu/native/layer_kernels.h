// Owns what the layers between the products compute, as functions on plain memory: one table of them for each
// instruction set. It knows no arrays, threads or models.
//
// A result depends on the numbers that it is computed from and on nothing else: not on how many rows, queries or heads
// are computed together, nor on where a prompt was cut.
#pragma once

namespace squish {

constexpr int kKeys = 64;  // keys at a time; counted from the first key of a sequence

// How a key or a value is kept: float32, float16, or codes of 8 bits in groups of kGroup with a float16 scale each. The
// codes of a vector come first, then its scales. A number is rounded once, when its token enters.
enum Kept { kFloat = 32, kHalf = 16, kByte = 8 };
constexpr int kGroup = 32;

// Bytes of a vector of `dims` numbers.
static inline __attribute__((always_inline)) long kept_bytes(Kept kept, int dims) {
    return kept == kFloat ? 4L * dims : kept == kHalf ? 2L * dims : dims + 2L * ((dims + kGroup - 1) / kGroup);
}

enum Gate { kSilu = 0, kGeluTanh = 1, kGelu = 2 };

// Attention of the queries of one sequence, in the heads that share one key head.
// Keys have numbers, from 0 for the first of the sequence; `number` is that of the first in memory. A ring of keys goes
// on at the beginning of its memory after `ring` keys; the key `number` lies at `turn`. 0: no ring.
// The first `lent` keys lie elsewhere, at `lent_k` and `lent_v`.
// Strides of keys and values are in bytes, all others in floats; `*_next` to the next position, `*_head` to the next head.
struct Attention {
    const float* q;
    const void* k;
    const void* v;
    float* out;
    long q_next, q_head, k_next, v_next, out_next, out_head;
    Kept kept;                          // keys and values
    const float* sinks;                 // one a head, or null
    const unsigned char* visible;       // a mask, or null; strides in bytes
    const float* added;                 // a mask that is added, or null; strides in floats
    long mask_next, mask_head, mask_key;
    long number, ring, turn;
    const void *lent_k, *lent_v;
    long lent, lent_k_next, lent_v_next;
    long position;                      // the number of the first query, if causal
    long keys;                          // how many there are: numbers `number` to `number + keys - 1`
    long window;                        // how many keys a query sees, its own included; 0: all
    bool causal;                        // a query sees no key of a higher number than its own
    int heads, queries, dims, value_dims;
    float scale;
};

struct LayerKernels {
    const char* name;
    // out = x / rms(x) · (weight + one). With `residual`: x + residual is normalized, and written to `total`.
    void (*norm)(const float* x, const float* residual, const float* weight, float one, float eps, int size, float* total,
               float* out);
    // Turns the pairs of the first `dims` numbers of a head; copies the others. cosine, sine: one a pair.
    void (*rotate)(const float* x, const float* cosine, const float* sine, int dims, int size, bool adjacent, float* out);
    // The logarithm of the sum of e to the power of each.
    float (*log_sum)(const float* x, long size);
    void (*gate)(const float* gate, const float* up, long size, Gate kind, float* out);
    // A key or a value as it is kept, of kept_bytes().
    void (*keep)(const float* x, int dims, Kept kept, void* to);
    // Queries first to first + count. scratch: attention_scratch() floats.
    void (*attend)(const Attention& task, int first, int count, float* scratch);
};

// Floats of scratch that `count` queries of a task need.
inline long attention_scratch(const Attention& task, int count) {
    long rows = static_cast<long>(task.heads) * count;
    long dims = (task.dims + 15) / 16 * 16, value_dims = (task.value_dims + 15) / 16 * 16;
    long widened = task.kept == kFloat ? 0 : kKeys * (dims > value_dims ? dims : value_dims);
    return rows * (dims + value_dims + 2) + dims * kKeys + 8 * kKeys + 64 + widened;
}

// Every table that this processor can run, the fastest first.
int layer_kernels(const LayerKernels** tables, int most);

}  // namespace squish

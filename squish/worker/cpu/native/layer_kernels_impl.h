// Owns the one source of the layers' kernels; layer_*.cpp compile it, each for one instruction set.
#pragma once

#include "layer_kernels.h"
#include "vectors.h"

namespace {

using squish::Attention;
using squish::Gate;
using squish::kGroup;
using squish::kKeys;
using squish::Kept;
using squish::LayerKernels;

// ---- norms, rotation, gates

void norm(const float* x, const float* residual, const float* weight, float one, float eps, int size, float* total,
                    float* out) {
    Floats squares = all(0.0f);
    const float* from = x;
    for (int i = 0; i < size; i += kWidth) {
        const int left = size - i;
        Floats value = left < kWidth ? load_part(x + i, left) : load(x + i);
        if (residual) {
            value += left < kWidth ? load_part(residual + i, left) : load(residual + i);
            left < kWidth ? store_part(total + i, value, left) : store(total + i, value);
            from = total;
        }
        squares = madd(value, value, squares);
    }
    const Floats scale = all(1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(size) + eps));
    const Floats plus = all(one);
    for (int i = 0; i < size; i += kWidth) {
        const int left = size - i;
        if (left < kWidth) {
            store_part(out + i, load_part(from + i, left) * scale * (load_part(weight + i, left) + plus), left);
        } else {
            store(out + i, load(from + i) * scale * (load(weight + i) + plus));
        }
    }
}

void rotate(const float* x, const float* cosine, const float* sine, int dims, int size, bool adjacent, float* out) {
    const int half = dims / 2;
    int i = 0;
    if (!adjacent) {
        for (; i + kWidth <= half; i += kWidth) {
            const Floats a = load(x + i), b = load(x + half + i), c = load(cosine + i), s = load(sine + i);
            store(out + i, madd(a, c, -(b * s)));
            store(out + half + i, madd(b, c, a * s));
        }
    }
    for (; i < half; i++) {
        const int first = adjacent ? 2 * i : i, second = adjacent ? 2 * i + 1 : half + i;
        const float a = x[first], b = x[second];
        out[first] = __builtin_fmaf(a, cosine[i], -(b * sine[i]));
        out[second] = __builtin_fmaf(b, cosine[i], a * sine[i]);
    }
    for (int at = dims; at < size; at++) out[at] = x[at];
}

float log_sum(const float* x, long size) {
    Floats most = all(-__builtin_inff());
    for (long i = 0; i < size; i += kWidth) {
        if (size - i >= kWidth) {
            most = maximum(load(x + i), most);
        } else {
            for (long at = i; at < size; at++) most = maximum(all(x[at]), most);
        }
    }
    const float highest = largest(most);
    if (highest == -__builtin_inff() || highest == __builtin_inff() || highest != highest) return highest;
    Floats total = all(0.0f);
    float rest = 0.0f;
    for (long i = 0; i < size; i += kWidth) {
        if (size - i >= kWidth) {
            total += exponential(load(x + i) - all(highest));
        } else {
            for (long at = i; at < size; at++) rest += exponential(all(x[at] - highest))[0];
        }
    }
    return highest + __builtin_logf(sum(total) + rest);
}

SQUISH_INLINE Floats gated(Floats gate, Floats up, Gate kind) {
    Floats inner = gate;
    if (kind == squish::kGeluTanh) {
        inner = all(1.5957691216f) * madd(gate * gate * gate, all(0.044715f), gate);
    }
    return gate / (all(1.0f) + exponential(-inner)) * up;
}

void gate(const float* gate, const float* up, long size, Gate kind, float* out) {
    if (kind == squish::kGelu) {
        for (long i = 0; i < size; i++) {
            out[i] = 0.5f * gate[i] * (1.0f + __builtin_erff(gate[i] * 0.70710678f)) * up[i];
        }
        return;
    }
    for (long i = 0; i < size; i += kWidth) {
        const long left = size - i;
        if (left < kWidth) {
            const int count = static_cast<int>(left);
            store_part(out + i, gated(load_part(gate + i, count), load_part(up + i, count), kind), count);
        } else {
            store(out + i, gated(load(gate + i), load(up + i), kind));
        }
    }
}

// ---- keys and values as they are kept

SQUISH_INLINE void keep_halves(const float* x, int dims, char* to) {
    int i = 0;
    for (; i + kWidth <= dims; i += kWidth) store_halves(to + 2 * i, load(x + i));
    if (i == dims) return;
    uint16_t rest[kWidth];
    store_halves(rest, load_part(x + i, dims - i));
    __builtin_memcpy(to + 2 * i, rest, 2 * (dims - i));
}

// A scale of a group, and codes that are multiples of it as it is kept.
SQUISH_INLINE void keep_group(const float* x, int count, char* codes, char* scale) {
    float numbers[kGroup] = {};
    __builtin_memcpy(numbers, x, sizeof(float) * count);
    Floats most = all(0.0f);
    for (int i = 0; i < kGroup; i += kWidth) {
        const Floats value = load(numbers + i);
        most = maximum(maximum(value, -value), most);
    }
    uint16_t kept[kWidth];
    store_halves(kept, all(largest(most) / 127.0f));
    __builtin_memcpy(scale, kept, 2);
    const float step = half_at(scale), inverse = step > 0.0f ? 1.0f / step : 0.0f;
    const Floats rounder = all(12582912.0f);  // adding it leaves an integer in the lowest bits
    for (int i = 0; i < kGroup; i += kWidth) {
        const Floats code = minimum(maximum(load(numbers + i) * all(inverse), all(-127.0f)), all(127.0f)) + rounder;
        store(numbers + i, code - rounder);
    }
    for (int i = 0; i < count; i++) codes[i] = static_cast<char>(static_cast<int>(numbers[i]));
}

void keep(const float* x, int dims, Kept kept, void* to) {
    char* bytes = static_cast<char*>(to);
    if (kept == squish::kFloat) {
        __builtin_memcpy(to, x, sizeof(float) * dims);
    } else if (kept == squish::kHalf) {
        keep_halves(x, dims, bytes);
    } else {
        for (int at = 0; at < dims; at += kGroup) {
            keep_group(x + at, dims - at < kGroup ? dims - at : kGroup, bytes + at, bytes + dims + at / kGroup * 2);
        }
    }
}

SQUISH_INLINE void widen_halves(const char* from, int dims, float* to) {
    int i = 0;
    for (; i + kWidth <= dims; i += kWidth) store(to + i, load_halves(from + 2 * i));
    for (; i < dims; i++) to[i] = half_at(from + 2 * i);
}

SQUISH_INLINE void widen_bytes(const char* from, int dims, float* to) {
    for (int at = 0; at < dims; at += kGroup) {
        const float scale = half_at(from + dims + at / kGroup * 2);
        if (at + kGroup <= dims) {
            for (int i = at; i < at + kGroup; i += kWidth) store(to + i, load_bytes(from + i) * all(scale));
        } else {
            for (int i = at; i < dims; i++) to[i] = static_cast<float>(static_cast<signed char>(from[i])) * scale;
        }
    }
}

// A vector as float32: where it lies, or in `wide`, where it is put then.
SQUISH_INLINE const float* widened(const void* from, int dims, Kept kept, float* wide) {
    if (kept == squish::kFloat) return static_cast<const float*>(from);
    const char* bytes = static_cast<const char*>(from);
    kept == squish::kHalf ? widen_halves(bytes, dims, wide) : widen_bytes(bytes, dims, wide);
    return wide;
}

// ---- attention: keys in blocks of kKeys, counted from the first; a running maximum and sum for each query

#if defined(SQUISH_AVX512) || defined(SQUISH_AVX2)
// Eight keys by eight dims, turned over.
SQUISH_INLINE void turn8(const float* const* rows, int at, float* to) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(rows[i] + at);
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * kKeys, _mm256_permute2f128_ps(r[i], r[4 + i], 0x20));
        _mm256_storeu_ps(to + (4 + i) * kKeys, _mm256_permute2f128_ps(r[i], r[4 + i], 0x31));
    }
}
#endif

// keys: pointers to `count` keys of `dims` numbers → turned[dim][key]; keys beyond `count` are zeros.
void turn(const float* const* keys, int count, int dims, float* turned) {
    int key = 0;
#if defined(SQUISH_AVX512) || defined(SQUISH_AVX2)
    for (; key + 8 <= count; key += 8) {
        int dim = 0;
        for (; dim + 8 <= dims; dim += 8) turn8(keys + key, dim, turned + dim * kKeys + key);
        for (; dim < dims; dim++) {
            for (int i = 0; i < 8; i++) turned[dim * kKeys + key + i] = keys[key + i][dim];
        }
    }
#endif
    for (; key < kKeys; key++) {
        for (int dim = 0; dim < dims; dim++) turned[dim * kKeys + key] = key < count ? keys[key][dim] : 0.0f;
    }
}

template <int R>
SQUISH_INLINE void score(const float* q, long q_next, const float* turned, int dims, int keys, float* scores) {
    constexpr int kStep = 4;
    for (int key = 0; key < keys; key += kStep * kWidth) {
        Floats sums[R][kStep];
        for (int r = 0; r < R; r++) {
            for (int v = 0; v < kStep; v++) sums[r][v] = all(0.0f);
        }
        for (int dim = 0; dim < dims; dim++) {
            const float* from = turned + dim * kKeys + key;
            Floats k[kStep];
            for (int v = 0; v < kStep; v++) k[v] = load(from + v * kWidth);
            for (int r = 0; r < R; r++) {
                const Floats number = all(q[r * q_next + dim]);
                for (int v = 0; v < kStep; v++) sums[r][v] = madd(number, k[v], sums[r][v]);
            }
        }
        for (int r = 0; r < R; r++) {
            for (int v = 0; v < kStep; v++) store(scores + r * kKeys + key + v * kWidth, sums[r][v]);
        }
    }
}

template <int R, int N>
SQUISH_INLINE void gather_part(const float* weights, const float* const* values, int count, int at, float* sums,
                               long next) {
    Floats total[R][N];
    for (int r = 0; r < R; r++) {
        for (int v = 0; v < N; v++) total[r][v] = load(sums + r * next + at + v * kWidth);
    }
    for (int key = 0; key < count; key++) {
        const float* from = values[key] + at;
        Floats value[N];
        for (int v = 0; v < N; v++) value[v] = load(from + v * kWidth);
        for (int r = 0; r < R; r++) {
            const Floats weight = all(weights[r * kKeys + key]);
            for (int v = 0; v < N; v++) total[r][v] = madd(weight, value[v], total[r][v]);
        }
    }
    for (int r = 0; r < R; r++) {
        for (int v = 0; v < N; v++) store(sums + r * next + at + v * kWidth, total[r][v]);
    }
}

template <int R>
SQUISH_INLINE void gather(const float* weights, const float* const* values, int count, int dims, float* sums,
                                                    long next) {
    int at = 0;
    for (; at + 4 * kWidth <= dims; at += 4 * kWidth) gather_part<R, 4>(weights, values, count, at, sums, next);
    for (; at + kWidth <= dims; at += kWidth) gather_part<R, 1>(weights, values, count, at, sums, next);
    if (at == dims) return;
    for (int r = 0; r < R; r++) {
        Floats total = load(sums + r * next + at);
        for (int key = 0; key < count; key++) {
            total = madd(all(weights[r * kKeys + key]), load_part(values[key] + at, dims - at), total);
        }
        store(sums + r * next + at, total);
    }
}

constexpr float kLowest = -1e30f;
constexpr float kNever = -__builtin_inff();

// Takes the scores of a block into a query's maximum and sum; leaves the weights in their place.
SQUISH_INLINE void weigh(float* scores, int keys, float* highest, float* total, float* sums, int dims) {
    Floats most = all(*highest);
    for (int i = 0; i < keys; i += kWidth) most = maximum(load(scores + i), most);
    const float now = largest(most);
    Floats weights = all(0.0f);
    for (int i = 0; i < keys; i += kWidth) {
        const Floats weight = exponential(load(scores + i) - all(now));
        store(scores + i, weight);
        weights += weight;
    }
    const Floats shrink = exponential(all(*highest) - all(now));
    *total = madd(all(*total), shrink, all(sum(weights)))[0];
    *highest = now;
    if (shrink[0] == 1.0f) return;
    for (int i = 0; i < dims; i += kWidth) store(sums + i, load(sums + i) * shrink);
}

// Which keys a query sees by its position: numbers low to high.
struct Span {
    long low, high;
};

SQUISH_INLINE Span seen(const Attention& task, int query) {
    Span span{task.number > 0 ? task.number : 0, task.number + task.keys - 1};
    const long own = task.position + query;
    if (task.causal && own < span.high) span.high = own;
    if (task.window > 0 && own - task.window + 1 > span.low) span.low = own - task.window + 1;
    return span;
}

SQUISH_INLINE void mask(const Attention& task, int query, int head, long start, int keys, float* scores) {
    const Span span = seen(task, query);
    for (int i = 0; i < keys; i++) {
        const long key = start + i;
        if (key < span.low || key > span.high) {
            scores[i] = kNever;
            continue;
        }
        const long at = query * task.mask_next + head * task.mask_head + (key - task.number) * task.mask_key;
        if (task.visible && !task.visible[at]) scores[i] = kNever;
        if (task.added) scores[i] += task.added[at];
    }
}

template <int R>
void attend_rows(const Attention& task, const int* queries, const int* heads, long start, int count, const float* q,
                 long q_next, const float* turned, const float* const* values, float* scores, float* highest,
                 float* totals, float* sums, long next) {
    constexpr int kStep = 4 * kWidth;
    const int keys = (count + kStep - 1) / kStep * kStep;
    score<R>(q, q_next, turned, task.dims, keys, scores);
    int last = 0;
    for (int r = 0; r < R; r++) {
        const Span span = seen(task, queries[r]);
        const bool whole = span.low <= start && start + keys - 1 <= span.high && !task.visible && !task.added;
        if (!whole) mask(task, queries[r], heads[r], start, keys, scores + r * kKeys);
        const long high = span.high - start + 1;
        last = high > last ? static_cast<int>(high > count ? count : high) : last;
        weigh(scores + r * kKeys, keys, highest + r, totals + r, sums + r * next, task.value_dims);
    }
    gather<R>(scores, values, last, task.value_dims, sums, next);
}

long where(const Attention& task, long key) {
    long at = key - task.number;
    if (task.ring) at = (at + task.turn) % task.ring;
    return at;
}

// Keys or values in memory: those of the sequence, and those that are lent.
struct Side {
    const void *own, *lent;
    long own_next, lent_next;
    int dims;
};

// Where the `count` vectors from the number `start` on are as float32. Of a ring, older ones are gone: others stand there.
SQUISH_INLINE void find(const Attention& task, const Side& side, long start, int count, float* wide, const float** found) {
    const long begin = start < task.number ? task.number : start;
    for (int i = 0; i < count; i++) {
        const long key = start + i < begin ? begin : start + i;
        const bool lent = key < task.lent;
        const char* from = static_cast<const char*>(lent ? side.lent : side.own);
        from += lent ? key * side.lent_next : where(task, key) * side.own_next;
        found[i] = widened(from, side.dims, task.kept, wide + i * side.dims);
    }
}

void attend(const Attention& task, int first, int count, float* scratch) {
    const int rows = task.heads * count;
    const long q_next = (task.dims + 15) / 16 * 16, next = (task.value_dims + 15) / 16 * 16;
    float* q = scratch;
    float* sums = q + rows * q_next;
    float* highest = sums + rows * next;
    float* totals = highest + rows;
    float* turned = totals + rows + 16;
    float* scores = turned + task.dims * kKeys;
    float* wide = scores + kRows * kKeys;
    for (int row = 0; row < rows; row++) {
        const int query = first + row / task.heads, head = row % task.heads;
        const float* from = task.q + query * task.q_next + head * task.q_head;
        for (int i = 0; i < task.dims; i++) q[row * q_next + i] = from[i] * task.scale;
        for (int i = 0; i < next; i++) sums[row * next + i] = 0.0f;
        highest[row] = task.sinks ? task.sinks[head] : kLowest;
        totals[row] = task.sinks ? 1.0f : 0.0f;
    }
    const Side own_keys{task.k, task.lent_k, task.k_next, task.lent_k_next, task.dims};
    const Side own_values{task.v, task.lent_v, task.v_next, task.lent_v_next, task.value_dims};
    const long low = seen(task, first).low, high = seen(task, first + count - 1).high;
    for (long start = low / kKeys * kKeys; start <= high; start += kKeys) {
        const float *keys[kKeys], *values[kKeys];
        const long left = task.number + task.keys - start;
        const int in_block = static_cast<int>(left < kKeys ? left : kKeys);
        find(task, own_keys, start, in_block, wide, keys);
        turn(keys, in_block, task.dims, turned);
        find(task, own_values, start, in_block, wide, values);
        for (int row = 0; row < rows;) {
            int queries[kRows], heads[kRows];
            int together = rows - row < kRows ? rows - row : kRows;
            bool any = false;
            for (int r = 0; r < together; r++) {
                queries[r] = first + (row + r) / task.heads;
                heads[r] = (row + r) % task.heads;
                const Span span = seen(task, queries[r]);
                any = any || (span.low < start + kKeys && span.high >= start);
            }
            if (any) {
                auto run = together == kRows ? attend_rows<kRows>
                                     : together == 1 ? attend_rows<1> : together == 2 ? attend_rows<2> : attend_rows<3>;
                run(task, queries, heads, start, in_block, q + row * q_next, q_next, turned, values, scores,
                    highest + row, totals + row, sums + row * next, next);
            }
            row += together;
        }
    }
    for (int row = 0; row < rows; row++) {
        float* to = task.out + (first + row / task.heads) * task.out_next + row % task.heads * task.out_head;
        const float share = totals[row] > 0.0f ? 1.0f / totals[row] : 0.0f;
        for (int i = 0; i < task.value_dims; i++) to[i] = sums[row * next + i] * share;
    }
}

}  // namespace

#define SQUISH_LAYER_KERNELS(name) \
    const squish::LayerKernels layer_##name = {#name, norm, rotate, log_sum, gate, keep, attend}

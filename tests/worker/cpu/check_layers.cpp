// The layers' kernels of this processor against plain loops in double precision: `make check-arm64` runs it under qemu.
// What they give must be near, and the same to the bit however the work is cut.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "layer_kernels.h"
#include "numbers.h"

namespace squish {
extern const LayerKernels layer_portable;  // NEON's, on arm64
}

using namespace squish;
using Numbers = std::vector<float>;

namespace {

const LayerKernels& with = layer_portable;
int wrong = 0;

uint32_t state = 7;
float random_float() { return state = state * 1664525u + 1013904223u, (float)(state >> 8) / (1 << 23) - 1.0f; }

Numbers randoms(size_t size, float scale = 1.0f) {
    Numbers numbers(size);
    for (float& each : numbers) each = random_float() * scale;
    return numbers;
}

void expect(bool right, const std::string& what) {
    if (right) return;
    std::printf("wrong: %s\n", what.c_str());
    wrong++;
}

void near(float found, double expected, double most, const std::string& what) {
    expect(std::fabs(found - expected) <= most * (1 + std::fabs(expected)), what + ": " + std::to_string(found) + ", not " + std::to_string(expected));
}

void check_norm(int size) {
    const Numbers x = randoms(size), residual = randoms(size), weight = randoms(size);
    for (const bool added : {false, true}) {
        Numbers out(size), total(size);
        with.norm(x.data(), added ? residual.data() : nullptr, weight.data(), 1.0f, 1e-5f, size, added ? total.data() : nullptr, out.data());
        double squares = 0;
        for (int i = 0; i < size; i++) squares += std::pow(x[i] + (added ? residual[i] : 0.0), 2);
        for (int i = 0; i < size; i++) {
            const double value = x[i] + (added ? residual[i] : 0.0);
            near(out[i], value / std::sqrt(squares / size + 1e-5) * (weight[i] + 1.0), 1e-5, "norm of " + std::to_string(size));
            if (added) near(total[i], value, 1e-6, "sum of " + std::to_string(size));
        }
    }
}

void check_rotation(int dims, bool adjacent) {
    const int size = 70, half = dims / 2;
    const Numbers x = randoms(size), cosine = randoms(half), sine = randoms(half);
    Numbers out(size);
    with.rotate(x.data(), cosine.data(), sine.data(), dims, size, adjacent, out.data());
    for (int i = 0; i < half; i++) {
        const int a = adjacent ? 2 * i : i, b = adjacent ? 2 * i + 1 : half + i;
        near(out[a], (double)x[a] * cosine[i] - (double)x[b] * sine[i], 1e-6, "rotation");
        near(out[b], (double)x[b] * cosine[i] + (double)x[a] * sine[i], 1e-6, "rotation");
    }
    for (int i = dims; i < size; i++) expect(out[i] == x[i], "what is not rotated");
}

void check_log_sum(long size) {
    const Numbers x = randoms(size, 30);
    double highest = -1e30, sum = 0;
    for (float each : x) highest = std::fmax(highest, each);
    for (float each : x) sum += std::exp(each - highest);
    near(with.log_sum(x.data(), size), highest + std::log(sum), 1e-5, "log_sum of " + std::to_string(size));
}

void check_gate(Gate kind) {
    const long size = 1003;
    Numbers gate = randoms(size, 8), up = randoms(size), out(size);
    gate[0] = 0, gate[1] = 100, gate[2] = -100;
    with.gate(gate.data(), up.data(), size, kind, out.data());
    for (long i = 0; i < size; i++) {
        const double g = gate[i];
        const double inner = 0.79788456 * (g + 0.044715 * g * g * g);
        const double open = kind == kSilu ? 1 / (1 + std::exp(-g))
                          : kind == kGeluTanh ? 0.5 * (1 + std::tanh(inner)) : 0.5 * (1 + std::erf(g * 0.70710678));
        near(out[i], g * open * up[i], 1e-4, "gate " + std::to_string(kind));
    }
}

struct Shape {
    int heads, queries, keys, dims, value_dims, window;
    bool sinks;
};

// float16 by its definition, of numbers that are not below its smallest normal one.
double as_half(double x) {
    if (x == 0 || std::fabs(x) >= 65504) return std::fmax(-65504, std::fmin(65504, x));
    int exponent;
    std::frexp(x, &exponent);
    const double step = std::ldexp(1.0, std::max(exponent, -13) - 11);
    return std::nearbyint(x / step) * step;
}

// `count` vectors as they are kept, and in `x` what they are then.
std::vector<char> kept(Numbers& x, int dims, Kept kind) {
    const long size = kept_bytes(kind, dims), count = x.size() / dims;
    std::vector<char> bytes(size * count);
    for (long i = 0; i < count; i++) {
        char* to = bytes.data() + i * size;
        float* from = x.data() + i * dims;
        with.keep(from, dims, kind, to);
        for (int at = 0; at < dims && kind != kFloat; at++) {
            if (kind == kHalf) {
                from[at] = static_cast<float>(as_half(from[at]));
                uint16_t half;
                std::memcpy(&half, to + 2 * at, 2);
                expect(from_half(half) == from[at], "half " + std::to_string(from[at]));
                continue;
            }
            uint16_t half;
            std::memcpy(&half, to + dims + at / kGroup * 2, 2);
            const double read = (double)(signed char)to[at] * from_half(half);
            expect(std::fabs(read - from[at]) <= 0.51 * from_half(half), "code " + std::to_string(from[at]));
            from[at] = static_cast<float>(read);
        }
    }
    return bytes;
}

void check_attention(const Shape& s, Kept kind) {
    const std::string name = "attention of " + std::to_string(s.queries) + " queries, window " + std::to_string(s.window) +
                             ", " + std::to_string(kind) + " bits";
    const Numbers q = randoms(s.queries * s.heads * s.dims);
    Numbers k = randoms(s.keys * s.dims), v = randoms(s.keys * s.value_dims);
    const std::vector<char> keys = kept(k, s.dims, kind), values = kept(v, s.value_dims, kind);
    const Numbers sinks = randoms(s.heads);
    Numbers out(s.queries * s.heads * s.value_dims), parts(out.size());
    Attention task{};
    task.kept = kind, task.q = q.data(), task.k = keys.data(), task.v = values.data(), task.sinks = s.sinks ? sinks.data() : nullptr;
    task.q_next = s.heads * s.dims, task.q_head = s.dims, task.k_next = kept_bytes(kind, s.dims), task.v_next = kept_bytes(kind, s.value_dims);
    task.out_next = s.heads * s.value_dims, task.out_head = s.value_dims;
    task.position = s.keys - s.queries, task.keys = s.keys, task.window = s.window, task.causal = true;
    task.heads = s.heads, task.queries = s.queries, task.dims = s.dims, task.value_dims = s.value_dims, task.scale = 0.3f;
    for (Numbers* to : {&out, &parts}) {
        task.out = to->data();
        const int step = to == &out ? s.queries : 3;
        for (int first = 0; first < s.queries; first += step) {
            const int count = first + step < s.queries ? step : s.queries - first;
            Numbers scratch(attention_scratch(task, count));
            with.attend(task, first, count, scratch.data());
        }
    }
    expect(!std::memcmp(out.data(), parts.data(), out.size() * sizeof(float)), name + " is not the same in parts");
    for (int query = 0; query < s.queries; query++)
        for (int head = 0; head < s.heads; head++) {
            const int last = s.keys - s.queries + query, first = s.window && last - s.window + 1 > 0 ? last - s.window + 1 : 0;
            std::vector<double> sums(s.value_dims);
            double total = s.sinks ? std::exp((double)sinks[head]) : 0;
            for (int key = first; key <= last; key++) {
                double score = 0;
                for (int d = 0; d < s.dims; d++) score += (double)q[(query * s.heads + head) * s.dims + d] * k[key * s.dims + d];
                const double weight = std::exp(score * 0.3);
                total += weight;
                for (int d = 0; d < s.value_dims; d++) sums[d] += weight * v[key * s.value_dims + d];
            }
            for (int d = 0; d < s.value_dims; d++)
                near(out[(query * s.heads + head) * s.value_dims + d], sums[d] / total, 2e-5, name);
        }
}

}  // namespace

int main() {
    for (const int size : {1, 7, 64, 83, 576}) check_norm(size);
    for (const int dims : {64, 24, 2, 0})
        for (const bool adjacent : {false, true}) check_rotation(dims, adjacent);
    for (const long size : {1L, 5L, 64L, 1003L}) check_log_sum(size);
    for (const Gate kind : {kSilu, kGeluTanh, kGelu}) check_gate(kind);
    for (const Shape& shape : {Shape{3, 1, 433, 64, 64, 0, false}, Shape{4, 70, 200, 80, 96, 0, true},
                               Shape{1, 17, 37, 8, 12, 0, false}, Shape{2, 130, 130, 128, 128, 50, false}})
        for (const Kept kind : {kFloat, kHalf, kByte}) check_attention(shape, kind);
    std::printf("%s: checked\n", with.name);
    return wrong != 0;
}

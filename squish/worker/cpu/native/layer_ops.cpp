#include "layer_ops.h"

#include <mlx/allocator.h>
#include <mlx/ops.h>
#include <mlx/primitives.h>

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "matrix.h"
#include "node.h"
#include "pool.h"

namespace mx = mlx::core;

namespace squish {

extern const LayerKernels layer_portable;
#if defined(__x86_64__)
extern const LayerKernels layer_avx2, layer_avx512;
#endif

const LayerKernels& layer_kernels() {
#if defined(__x86_64__)
    if (!std::strncmp(kernels().name, "avx512", 6)) return layer_avx512;
    if (!std::strncmp(kernels().name, "avx", 3)) return layer_avx2;
#endif
    return layer_portable;
}

const float* in_order(const Array& array, std::vector<float>& spare) {
    const float* from = array.data<float>();
    if (array.flags().row_contiguous) return from;
    spare.resize(array.size());
    const int axes = static_cast<int>(array.ndim());
    const int last = array.shape(axes - 1);
    const int64_t step = array.strides(axes - 1), lines = last ? static_cast<int64_t>(array.size()) / last : 0;
    for (int64_t line = 0; line < lines; line++) {
        int64_t rest = line, at = 0;
        for (int axis = axes - 2; axis >= 0; axis--) {
            at += rest % array.shape(axis) * array.strides(axis);
            rest /= array.shape(axis);
        }
        for (int i = 0; i < last; i++) spare[line * last + i] = from[at + i * step];
    }
    return spare.data();
}

namespace {

struct Norm : Operation {
    float one, eps;
    Norm(float one, float eps) : Operation("SquishNorm"), one(one), eps(eps) {}

    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        std::vector<float> spare[3];
        const float* x = in_order(inputs[0], spare[0]);
        const float* weight = in_order(inputs[1], spare[1]);
        const float* residual = inputs.size() > 2 ? in_order(inputs[2], spare[2]) : nullptr;
        float* out = outputs[0].data<float>();
        float* total = residual ? outputs[1].data<float>() : nullptr;
        const int size = inputs[0].shape(-1);
        in_runs(static_cast<int64_t>(inputs[0].size()) / size, size, [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) {
                const int64_t at = row * size;
                layer_kernels().norm(x + at, residual ? residual + at : nullptr, weight, one, eps, size,
                                     total ? total + at : nullptr, out + at);
            }
        });
    }
};

struct LogSum : Operation {
    LogSum() : Operation("SquishLogSum") {}

    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        std::vector<float> spare;
        const float* x = in_order(inputs[0], spare);
        float* out = outputs[0].data<float>();
        const int64_t size = inputs[0].shape(-1);
        in_runs(static_cast<int64_t>(outputs[0].size()), size, [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) out[row] = layer_kernels().log_sum(x + row * size, size);
        });
    }
};

struct Gated : Operation {
    Gate kind;
    explicit Gated(Gate kind) : Operation("SquishGate"), kind(kind) {}

    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        std::vector<float> spare[2];
        const float* gate = in_order(inputs[0], spare[0]);
        const float* up = in_order(inputs[1], spare[1]);
        float* out = outputs[0].data<float>();
        in_runs(static_cast<int64_t>(inputs[0].size()), 4, [&](int64_t first, int64_t last) {
            layer_kernels().gate(gate + first, up + first, last - first, kind, out + first);
        });
    }
};

struct Rotated : Operation {
    int dims, offset;
    bool adjacent;
    float scale;
    std::vector<float> speeds;
    Rotated(int dims, int offset, bool adjacent, float scale, std::vector<float> speeds)
        : Operation("SquishRotation"), dims(dims), offset(offset), adjacent(adjacent), scale(scale), speeds(std::move(speeds)) {}

    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        std::vector<float> spare;
        const float* x = in_order(inputs[0], spare);
        const int* offsets = inputs.size() > 1 ? inputs[1].data<int>() : nullptr;
        float* out = outputs[0].data<float>();
        const auto& shape = inputs[0].shape();
        const int64_t heads = shape[1], length = shape[2], size = shape[3];
        in_runs(shape[0] * length, heads * size, [&](int64_t first, int64_t last) {
            std::vector<float> cosine(dims / 2), sine(dims / 2);
            for (int64_t row = first; row < last; row++) {
                const int64_t batch = row / length, at = row % length;
                const int64_t start = offsets ? offsets[inputs[1].size() > 1 ? batch : 0] : offset;
                const float position = static_cast<float>(start + at) * scale;
                for (int i = 0; i < dims / 2; i++) {
                    cosine[i] = std::cos(position * speeds[i]);
                    sine[i] = std::sin(position * speeds[i]);
                }
                for (int64_t head = 0; head < heads; head++) {
                    const int64_t index = ((batch * heads + head) * length + at) * size;
                    layer_kernels().rotate(x + index, cosine.data(), sine.data(), dims, static_cast<int>(size), adjacent,
                                           out + index);
                }
            }
        });
    }
};

struct Attended : Operation {
    float scale;
    bool causal, sinks;
    int window;
    Attended(float scale, bool causal, bool sinks, int window)
        : Operation("SquishAttention"), scale(scale), causal(causal), sinks(sinks), window(window) {}

    // In memory the heads of a query lie together, as the product that follows wants them.
    void place(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        Array& out = outputs[0];
        const int64_t heads = out.shape(1), length = out.shape(2), size = out.shape(3);
        if (heads == 1 || length == 1) return Operation::place(inputs, outputs);
        mx::Strides strides{length * heads * size, size, heads * size, 1};
        out.set_data(mx::allocator::malloc(out.nbytes()), out.size(), strides, {true, false, false});
    }

    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        std::vector<float> spare[3];
        const Array &q = inputs[0], &k = inputs[1], &v = inputs[2], &out = outputs[0];
        const int batch = q.shape(0), heads = q.shape(1), length = q.shape(2), groups = k.shape(1);
        const float *from[3], *sink = sinks ? inputs.back().data<float>() : nullptr;
        mx::Strides strides[3];
        for (int i = 0; i < 3; i++) {
            strides[i] = inputs[i].strides();
            from[i] = inputs[i].data<float>();
            if (strides[i][3] == 1 || inputs[i].shape(3) == 1) continue;
            from[i] = in_order(inputs[i], spare[i]);
            const auto& shape = inputs[i].shape();
            strides[i] = {int64_t{shape[1]} * shape[2] * shape[3], int64_t{shape[2]} * shape[3], shape[3], 1};
        }
        const mx::Strides to = out.strides();
        const bool masked = inputs.size() > (sinks ? 4u : 3u);
        std::vector<Attention> tasks;
        for (int b = 0; b < batch; b++) {
            for (int g = 0; g < groups; g++) {
                Attention task{};
                const int each = heads / groups, first = g * each;
                task.q = from[0] + b * strides[0][0] + first * strides[0][1];
                task.k = from[1] + b * strides[1][0] + g * strides[1][1];
                task.v = from[2] + b * strides[2][0] + g * strides[2][1];
                task.out = const_cast<float*>(out.data<float>()) + b * to[0] + first * to[1];
                task.q_head = strides[0][1], task.q_next = strides[0][2];
                task.kept = kFloat;
                task.k_next = 4 * strides[1][2], task.v_next = 4 * strides[2][2];
                task.out_head = to[1], task.out_next = to[2];
                task.keys = k.shape(2), task.position = task.keys - length, task.causal = causal, task.window = window;
                task.heads = each, task.queries = length, task.dims = q.shape(3), task.value_dims = v.shape(3);
                task.scale = scale;
                task.sinks = sink ? sink + first : nullptr;
                if (masked) set_mask(task, inputs[3], b, first);
                tasks.push_back(task);
            }
        }
        attend(tasks);
    }

    static void set_mask(Attention& task, const Array& mask, int batch, int head) {
        const auto& strides = mask.strides();
        task.mask_head = strides[1], task.mask_next = strides[2], task.mask_key = strides[3];
        const int64_t at = batch * strides[0] + head * strides[1];
        if (mask.dtype() == mx::bool_) {
            task.visible = reinterpret_cast<const unsigned char*>(mask.data<bool>()) + at;
        } else {
            task.added = mask.data<float>() + at;
        }
    }
};

Array one_of(mx::Shape shape, std::shared_ptr<const Operation> operation, std::vector<Array> inputs) {
    return Array(std::move(shape), mx::float32, std::make_shared<Node>(std::move(operation)), std::move(inputs));
}

void need_floats(const Array& array, const char* what) {
    if (array.dtype() != mx::float32) throw std::invalid_argument(std::string(what) + " must be float32");
}

}  // namespace

std::vector<Array> norm(const Array& x, const Array& weight, const std::optional<Array>& residual, float one, float eps) {
    need_floats(x, "x");
    need_floats(weight, "weight");
    if (x.ndim() < 1 || x.shape(-1) < 1 || weight.ndim() != 1 || weight.shape(0) != x.shape(-1))
        throw std::invalid_argument("weight must be as long as the last axis of x");
    if (!residual) return {one_of(x.shape(), std::make_shared<Norm>(one, eps), {x, weight})};
    need_floats(*residual, "residual");
    if (residual->shape() != x.shape()) throw std::invalid_argument("residual must have the shape of x");
    return Array::make_arrays({x.shape(), x.shape()}, {mx::float32, mx::float32},
                              std::make_shared<Node>(std::make_shared<Norm>(one, eps)),
                              {x, weight, *residual});
}

Array log_sum(const Array& x) {
    need_floats(x, "x");
    if (x.ndim() < 1 || x.shape(-1) < 1) throw std::invalid_argument("x must have a last axis");
    mx::Shape shape = x.shape();
    shape.back() = 1;
    return one_of(std::move(shape), std::make_shared<LogSum>(), {x});
}

Array gated(const Array& gate, const Array& up, Gate kind) {
    need_floats(gate, "gate");
    need_floats(up, "up");
    if (gate.shape() != up.shape()) throw std::invalid_argument("gate and up must have the same shape");
    return one_of(gate.shape(), std::make_shared<Gated>(kind), {gate, up});
}

std::vector<float> speeds(int dims, std::optional<float> base, const std::optional<std::vector<float>>& periods) {
    if (dims < 0 || dims % 2) throw std::invalid_argument("dims must be even");
    std::vector<float> result(dims / 2);
    if (periods && periods->size() != result.size()) throw std::invalid_argument("freqs must have one number for each pair");
    const float step = std::log(base.value_or(1.0f)) / static_cast<float>(dims / 2);
    for (int i = 0; i < dims / 2; i++) {
        result[i] = periods ? 1.0f / (*periods)[i] : std::exp(static_cast<float>(-i) * step);
    }
    return result;
}

Array rotated(const Array& x, int dims, bool adjacent, float scale, const std::vector<float>& speeds,
              const std::variant<int, Array>& offset) {
    need_floats(x, "x");
    if (x.ndim() != 4 || dims > x.shape(3) || speeds.size() * 2 != static_cast<size_t>(dims))
        throw std::invalid_argument("x must be (batch, heads, length, size), and dims at most its size");
    std::vector<Array> inputs{x};
    int first = 0;
    if (auto* array = std::get_if<Array>(&offset)) {
        if (array->size() != 1 && static_cast<int>(array->size()) != x.shape(0))
            throw std::invalid_argument("offset must be one number or one for each row");
        inputs.push_back(mx::contiguous(mx::astype(*array, mx::int32)));
    } else {
        first = std::get<int>(offset);
    }
    return one_of(x.shape(), std::make_shared<Rotated>(dims, first, adjacent, scale, speeds), std::move(inputs));
}

Array attention(const Array& q, const Array& k, const Array& v, float scale, bool causal, int window,
                const std::optional<Array>& mask, const std::optional<Array>& sinks) {
    for (auto* each : {&q, &k, &v}) {
        need_floats(*each, "attention");
        if (each->ndim() != 4) throw std::invalid_argument("attention takes (batch, heads, length, size)");
    }
    if (k.shape(0) != q.shape(0) || v.shape(0) != q.shape(0) || k.shape(3) != q.shape(3) || v.shape(1) != k.shape(1) ||
        v.shape(2) != k.shape(2) || k.shape(1) < 1 || q.shape(1) % k.shape(1) || q.shape(3) < 1 || v.shape(3) < 1)
        throw std::invalid_argument("queries, keys and values do not fit each other");
    std::vector<Array> inputs{q, k, v};
    if (mask) {
        const mx::Shape full{q.shape(0), q.shape(1), q.shape(2), k.shape(2)};
        if (mask->dtype() != mx::bool_) need_floats(*mask, "a mask that is not bool");
        inputs.push_back(mx::broadcast_to(*mask, full));
    }
    if (sinks) {
        if (static_cast<int>(sinks->size()) != q.shape(1)) throw std::invalid_argument("sinks must be one for each head");
        inputs.push_back(mx::contiguous(mx::astype(*sinks, mx::float32)));
    }
    auto node = std::make_shared<Attended>(scale, causal, sinks.has_value(), window);
    return one_of({q.shape(0), q.shape(1), q.shape(2), v.shape(3)}, std::move(node), std::move(inputs));
}

void attend(const std::vector<Attention>& tasks) {
    constexpr int kQueries = 32;  // at a time: their sums stay in a core's cache
    int64_t work = 0;
    int chunks = 0;
    for (auto& task : tasks) {
        work += static_cast<int64_t>(task.queries) * task.heads * task.keys * (task.dims + task.value_dims);
        chunks += (task.queries + kQueries - 1) / kQueries;
    }
    auto run = [&](int chunk) {
        static thread_local std::vector<float> scratch;
        size_t i = 0;
        while (chunk >= (tasks[i].queries + kQueries - 1) / kQueries) chunk -= (tasks[i++].queries + kQueries - 1) / kQueries;
        const Attention& task = tasks[i];
        const int first = chunk * kQueries, count = std::min(kQueries, task.queries - first);
        scratch.resize(std::max<size_t>(scratch.size(), attention_scratch(task, count)));
        layer_kernels().attend(task, first, count, scratch.data());
    };
    if (work < 8 * kWorthAThread) {
        for (int chunk = 0; chunk < chunks; chunk++) run(chunk);
    } else {
        parallel(chunks, run);
    }
}

}  // namespace squish

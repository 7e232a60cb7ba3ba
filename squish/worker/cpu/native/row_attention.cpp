#include "row_attention.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "node.h"
#include "pool.h"

namespace mx = mlx::core;

namespace squish {
namespace {

struct Cache {
    const float* before;  // null: none, or the same memory as `now`
    float* now;
};

// The keys or values that stay, moved to their new memory; what is not used yet is zeros.
void carry_over(const Cache& cache, int64_t before_room, const RowPlan& row, int heads, int dims) {
    const int64_t kept = row.position - row.next_start;
    for (int64_t head = 0; head < heads; head++) {
        float* to = cache.now + head * row.room * dims;
        if (cache.before && kept > 0) {
            const float* from = cache.before + (head * before_room + row.next_start - row.start) * dims;
            std::memcpy(to, from, sizeof(float) * kept * dims);
        }
        std::memset(to + kept * dims, 0, sizeof(float) * (row.room - kept) * dims);
    }
}

struct RowAttention : Operation {
    std::shared_ptr<const AttentionLayer> layer;
    std::vector<RowPlan> rows;
    std::vector<int> held;  // which input holds the keys of a row; the values' is the next; -1: none

    RowAttention(std::shared_ptr<const AttentionLayer> layer, std::vector<RowPlan> rows, std::vector<int> held)
        : Operation("SquishRowAttention"), layer(std::move(layer)), rows(std::move(rows)), held(std::move(held)) {}

    bool stays(const Array& before, size_t row) const {
        return before.shape(2) == rows[row].room && rows[row].start == rows[row].next_start;
    }

    void place(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        outputs[0].set_data(mx::allocator::malloc(outputs[0].nbytes()));
        for (size_t i = 0; i < 2 * rows.size(); i++) {
            const size_t row = i % rows.size();
            Array& output = outputs[1 + i];
            const Array* before = held[row] < 0 ? nullptr : &inputs[held[row] + i / rows.size()];
            if (before && stays(*before, row) && before->is_donatable() && before->flags().row_contiguous) {
                output.copy_shared_buffer(*before);
            } else {
                output.set_data(mx::allocator::malloc(output.nbytes()));
            }
        }
    }

    // Keys (which = 0) or values (1) of a row, after what was there before has been brought over.
    float* cache(const std::vector<Array>& inputs, std::vector<Array>& outputs, size_t row, int which) const {
        float* now = outputs[1 + which * rows.size() + row].data<float>();
        const int dims = which ? layer->value_dims : layer->dims;
        if (held[row] < 0) {
            carry_over({nullptr, now}, 0, rows[row], layer->key_heads, dims);
            return now;
        }
        const Array& before = inputs[held[row] + which];
        std::vector<float> spare;
        const float* from = in_order(before, spare);
        if (from != now) carry_over({from, now}, before.shape(2), rows[row], layer->key_heads, dims);
        return now;
    }

    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        std::vector<float> spare[3];
        const float* from[3];
        for (int i = 0; i < 3; i++) from[i] = in_order(inputs[i], spare[i]);
        const int64_t batch = static_cast<int64_t>(rows.size()), length = inputs[0].shape(1);
        const AttentionLayer& l = *layer;
        static thread_local std::vector<float> turned;
        turned.resize(std::max<size_t>(turned.size(), inputs[0].size()));
        float* queries = turned.data();
        std::vector<float*> keys, values;
        for (size_t row = 0; row < rows.size(); row++) {
            keys.push_back(cache(inputs, outputs, row, 0));
            values.push_back(cache(inputs, outputs, row, 1));
        }
        const int64_t all = batch * length, run = batch * length * l.heads * l.dims < 1 << 15 ? all : 16;
        parallel(static_cast<int>((all + run - 1) / run), [&](int chunk) {
            std::vector<float> room(l.speeds.size() * 2 + l.dims);
            for (int64_t i = chunk * run; i < std::min(all, (chunk + 1) * run); i++) {
                const RowPlan& row = rows[i / length];
                if (i % length >= row.length) continue;
                enter(i, i % length, row, from, queries, keys[i / length], values[i / length], room.data());
            }
        });
        float* out = outputs[0].data<float>();
        const int64_t size = int64_t{l.heads} * l.value_dims;
        std::vector<Attention> tasks;
        for (int64_t b = 0; b < batch; b++) {
            const RowPlan& row = rows[b];
            std::memset(out + (b * length + row.length) * size, 0, sizeof(float) * (length - row.length) * size);
            for (int head = 0; row.length && head < l.key_heads; head++) {
                tasks.push_back(task(row, head, queries + b * length * l.heads * l.dims, keys[b], values[b],
                                     out + b * length * size));
            }
        }
        attend(tasks);
    }

    // A new token: its queries turned, its keys and values put into the cache.
    void enter(int64_t index, int64_t at, const RowPlan& row, const float* const* from, float* queries, float* keys,
               float* values, float* room) const {
        const AttentionLayer& l = *layer;
        const LayerKernels& with = layer_kernels();
        const int pairs = static_cast<int>(l.speeds.size());
        float *cosine = room, *sine = room + pairs, *normed = room + 2 * pairs;
        const float position = static_cast<float>(row.position + at) * l.position_scale;
        for (int i = 0; i < pairs; i++) {
            cosine[i] = std::cos(position * l.speeds[i]) * l.stretch;
            sine[i] = std::sin(position * l.speeds[i]) * l.stretch;
        }
        auto turn = [&](const float* x, const std::vector<float>& weight, float* to) {
            if (!weight.empty()) {
                with.norm(x, nullptr, weight.data(), l.norm_one, l.norm_eps, l.dims, nullptr, normed);
                x = normed;
            }
            with.rotate(x, cosine, sine, 2 * pairs, l.dims, l.adjacent, to);
        };
        for (int head = 0; head < l.heads; head++) {
            const int64_t place = (index * l.heads + head) * l.dims;
            turn(from[0] + place, l.q_norm, queries + place);
        }
        for (int head = 0; head < l.key_heads; head++) {
            const int64_t place = head * row.room + row.position + at - row.next_start;
            turn(from[1] + (index * l.key_heads + head) * l.dims, l.k_norm, keys + place * l.dims);
            std::memcpy(values + place * l.value_dims, from[2] + (index * l.key_heads + head) * l.value_dims,
                        sizeof(float) * l.value_dims);
        }
    }

    Attention task(const RowPlan& row, int head, const float* queries, const float* keys, const float* values,
                   float* out) const {
        const AttentionLayer& l = *layer;
        const int each = l.heads / l.key_heads, first = head * each;
        Attention task{};
        task.q = queries + int64_t{first} * l.dims;
        task.k = keys + head * row.room * l.dims;
        task.v = values + head * row.room * l.value_dims;
        task.out = out + int64_t{first} * l.value_dims;
        task.q_next = int64_t{l.heads} * l.dims, task.q_head = l.dims;
        task.out_next = int64_t{l.heads} * l.value_dims, task.out_head = l.value_dims;
        task.k_next = l.dims, task.v_next = l.value_dims;
        task.number = row.next_start, task.position = row.position;
        task.keys = row.position + row.length - row.next_start;
        task.causal = true, task.window = l.window;
        task.heads = each, task.queries = static_cast<int>(row.length), task.dims = l.dims, task.value_dims = l.value_dims;
        task.scale = l.scale;
        task.sinks = l.sinks.empty() ? nullptr : l.sinks.data() + first;
        return task;
    }
};

void check(const AttentionLayer& layer, const Array& q, const Array& k, const Array& v, size_t rows) {
    for (auto* each : {&q, &k, &v}) {
        if (each->dtype() != mx::float32 || each->ndim() != 3 || each->shape(0) != static_cast<int>(rows) ||
            each->shape(1) != q.shape(1))
            throw std::invalid_argument("queries, keys and values must be (batch, length, size) float32");
    }
    if (q.shape(2) != layer.heads * layer.dims || k.shape(2) != layer.key_heads * layer.dims ||
        v.shape(2) != layer.key_heads * layer.value_dims)
        throw std::invalid_argument("queries, keys and values do not fit the layer");
}

void check(const AttentionLayer& layer, const RowPlan& row, const Array& keys, const Array& values) {
    const mx::Shape expected{1, layer.key_heads, keys.ndim() == 4 ? keys.shape(2) : 0, layer.dims};
    mx::Shape other = expected;
    other[3] = layer.value_dims;
    if (keys.shape() != expected || values.shape() != other || keys.dtype() != mx::float32 || values.dtype() != mx::float32 ||
        row.position - row.start > keys.shape(2))
        throw std::invalid_argument("a cache does not fit the layer");
}

}  // namespace

std::vector<Array> row_attention(std::shared_ptr<const AttentionLayer> layer, const Array& q, const Array& k,
                                 const Array& v, const std::vector<std::optional<Array>>& keys,
                                 const std::vector<std::optional<Array>>& values, const std::vector<RowPlan>& rows) {
    check(*layer, q, k, v, rows.size());
    if (keys.size() != rows.size() || values.size() != rows.size()) throw std::invalid_argument("one cache for each row");
    std::vector<Array> inputs{q, k, v};
    std::vector<int> held;
    std::vector<mx::Shape> shapes{{q.shape(0), q.shape(1), layer->heads * layer->value_dims}};
    for (size_t i = 0; i < rows.size(); i++) {
        const RowPlan& row = rows[i];
        if (row.length < 0 || row.length > q.shape(1) || row.next_start < row.start || row.start < 0 ||
            row.next_start > row.position || row.position + row.length - row.next_start > row.room)
            throw std::invalid_argument("a row does not fit its cache");
        held.push_back(keys[i] ? static_cast<int>(inputs.size()) : -1);
        if (keys[i].has_value() != values[i].has_value() || (!keys[i] && row.position != row.next_start))
            throw std::invalid_argument("a row without a cache has no tokens yet");
        if (!keys[i]) continue;
        check(*layer, row, *keys[i], *values[i]);
        inputs.push_back(*keys[i]);
        inputs.push_back(*values[i]);
    }
    for (int dims : {layer->dims, layer->value_dims}) {
        for (auto& row : rows) shapes.push_back({1, layer->key_heads, static_cast<int>(row.room), dims});
    }
    const std::vector<mx::Dtype> types(shapes.size(), mx::float32);
    auto node = std::make_shared<Node>(std::make_shared<RowAttention>(std::move(layer), rows, std::move(held)));
    return Array::make_arrays(std::move(shapes), types, std::move(node), inputs);
}

}  // namespace squish

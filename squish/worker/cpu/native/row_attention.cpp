#include "row_attention.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "pool.h"

namespace mx = mlx::core;

namespace squish {
namespace {

// Keys or values that get new memory. before: those that were there, nullptr for none; room: how many they had.
struct Move {
    const float* before;
    int64_t room;
    const RowPlan* row;
    int dims;
    float* now;

    // Of one head. What is not used yet is zeros.
    void operator()(int64_t head) const {
        const int64_t kept = row->position - row->next_start;
        float* to = now + head * row->room * dims;
        if (before && kept > 0) {
            const float* from = before + (head * room + row->next_start - row->start) * dims;
            std::memcpy(to, from, sizeof(float) * kept * dims);
        }
        std::memset(to + kept * dims, 0, sizeof(float) * (row->room - kept) * dims);
    }
};

void check(const AttentionLayer& layer, const RowPlan& row, const Array& keys, const Array& values) {
    const mx::Shape expected{1, layer.key_heads, keys.ndim() == 4 ? keys.shape(2) : 0, layer.dims};
    mx::Shape other = expected;
    other[3] = layer.value_dims;
    if (keys.shape() != expected || values.shape() != other || keys.dtype() != mx::float32 || values.dtype() != mx::float32 ||
        row.position - row.start > keys.shape(2))
        throw std::invalid_argument("a cache does not fit the layer");
}

}  // namespace

void RowAttention::take(const Caches& keys, const Caches& values, int length, std::vector<Array>& inputs,
                        std::vector<mx::Shape>& shapes) {
    if (keys.size() != rows.size() || values.size() != rows.size()) throw std::invalid_argument("one cache for each row");
    for (size_t i = 0; i < rows.size(); i++) {
        const RowPlan& row = rows[i];
        if (row.length < 0 || row.length > length || row.next_start < row.start || row.start < 0 ||
            row.next_start > row.position || row.position + row.length - row.next_start > row.room)
            throw std::invalid_argument("a row does not fit its cache");
        if (keys[i].has_value() != values[i].has_value() || (!keys[i] && row.position != row.next_start))
            throw std::invalid_argument("a row without a cache has no tokens yet");
        held.push_back(keys[i] ? static_cast<int>(inputs.size()) : -1);
        if (!keys[i]) continue;
        check(*layer, row, *keys[i], *values[i]);
        inputs.push_back(*keys[i]);
        inputs.push_back(*values[i]);
    }
    for (int dims : {layer->dims, layer->value_dims}) {
        for (auto& row : rows) shapes.push_back({1, layer->key_heads, static_cast<int>(row.room), dims});
    }
}

void RowAttention::place(const std::vector<Array>& inputs, std::vector<Array>& outputs) const {
    outputs[0].set_data(mx::allocator::malloc(outputs[0].nbytes()));
    for (size_t i = 0; i < 2 * rows.size(); i++) {
        const size_t row = i % rows.size();
        Array& output = outputs[1 + i];
        const Array* before = held[row] < 0 ? nullptr : &inputs[held[row] + i / rows.size()];
        const bool stays = before && before->shape(2) == rows[row].room && rows[row].start == rows[row].next_start;
        if (stays && rows[row].owned && before->flags().row_contiguous) {
            output.copy_shared_buffer(*before);
        } else {
            output.set_data(mx::allocator::malloc(output.nbytes()));
        }
    }
}

// Keys (which = 0) or values (1) of each row, after what was there before has been brought over.
std::vector<float*> RowAttention::caches(const std::vector<Array>& inputs, std::vector<Array>& outputs, int which) const {
    std::vector<float*> all;
    std::vector<Move> moves;
    std::vector<std::vector<float>> spare(rows.size());
    for (size_t row = 0; row < rows.size(); row++) {
        all.push_back(outputs[1 + which * rows.size() + row].data<float>());
        const Array* before = held[row] < 0 ? nullptr : &inputs[held[row] + which];
        const float* from = before ? in_order(*before, spare[row]) : nullptr;
        if (from == all.back()) continue;
        moves.push_back({from, before ? before->shape(2) : 0, &rows[row], which ? layer->value_dims : layer->dims, all.back()});
    }
    parallel(static_cast<int>(moves.size()) * layer->key_heads,
             [&](int each) { moves[each / layer->key_heads](each % layer->key_heads); });
    return all;
}

void RowAttention::work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const {
    std::vector<float> spare[3];
    const float* from[3];
    for (int i = 0; i < 3; i++) from[i] = in_order(inputs[i], spare[i]);
    attend_all(from, inputs[0].shape(1), inputs, outputs, outputs[0].data<float>());
}

void RowAttention::attend_all(const float* const* from, int64_t length, const std::vector<Array>& inputs,
                              std::vector<Array>& outputs, float* out) const {
    const AttentionLayer& l = *layer;
    const int64_t batch = static_cast<int64_t>(rows.size()), all = batch * length;
    const int64_t width = int64_t{l.heads} * l.dims, out_width = int64_t{l.heads} * l.value_dims;
    const std::unique_ptr<float[]> queries(new float[all * width]);
    const std::vector<float*> keys = caches(inputs, outputs, 0), values = caches(inputs, outputs, 1);
    in_runs(all, width, [&](int64_t first, int64_t last) {
        std::vector<float> room(l.speeds.size() * 2 + l.dims);
        for (int64_t i = first; i < last; i++) {
            const int64_t row = i / length;
            if (i % length >= rows[row].length) continue;
            enter(i, i % length, rows[row], from, queries.get(), keys[row], values[row], room.data());
        }
    });
    std::vector<Attention> tasks;
    for (int64_t b = 0; b < batch; b++) {
        const RowPlan& row = rows[b];
        float* to = out + b * length * out_width;
        std::memset(to + row.length * out_width, 0, sizeof(float) * (length - row.length) * out_width);
        for (int head = 0; row.length && head < l.key_heads; head++) {
            tasks.push_back(task(row, head, queries.get() + b * length * width, keys[b], values[b], to));
        }
    }
    attend(tasks);
}

// A new token: its queries turned, its keys and values put into the cache.
void RowAttention::enter(int64_t index, int64_t at, const RowPlan& row, const float* const* from, float* queries,
                         float* keys, float* values, float* room) const {
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

Attention RowAttention::task(const RowPlan& row, int head, const float* queries, const float* keys, const float* values,
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

std::vector<Array> row_attention(std::shared_ptr<const AttentionLayer> layer, const Array& q, const Array& k,
                                 const Array& v, const Caches& keys, const Caches& values, std::vector<RowPlan> rows) {
    for (auto* each : {&q, &k, &v}) {
        if (each->dtype() != mx::float32 || each->ndim() != 3 || each->shape(0) != static_cast<int>(rows.size()) ||
            each->shape(1) != q.shape(1))
            throw std::invalid_argument("queries, keys and values must be (batch, length, size) float32");
    }
    if (q.shape(2) != layer->heads * layer->dims || k.shape(2) != layer->key_heads * layer->dims ||
        v.shape(2) != layer->key_heads * layer->value_dims)
        throw std::invalid_argument("queries, keys and values do not fit the layer");
    std::vector<Array> inputs{q, k, v};
    std::vector<mx::Shape> shapes{{q.shape(0), q.shape(1), layer->heads * layer->value_dims}};
    auto attention = std::make_shared<RowAttention>("SquishRowAttention", std::move(layer), std::move(rows));
    attention->take(keys, values, q.shape(1), inputs, shapes);
    const std::vector<mx::Dtype> types(shapes.size(), mx::float32);
    return Array::make_arrays(std::move(shapes), types, std::make_shared<Node>(std::move(attention)), inputs);
}

}  // namespace squish

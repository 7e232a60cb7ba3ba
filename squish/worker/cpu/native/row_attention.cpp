#include "row_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "pool.h"

namespace mx = mlx::core;

namespace squish {
namespace {

// Keys `first` to `last` - 1 of each head. from: that of the number `base`; strides in floats.
struct Piece {
    const float* from;
    int64_t head_next, key_next, base, first, last;
};

// What comes into the keys or values of a row before its new ones. fresh: the memory is new; what is not used yet is zeros.
struct Move {
    Piece pieces[2];
    bool fresh;
    const RowPlan* row;
    int dims;
    float* now;

    void operator()(int64_t head) const {
        float* to = now + head * row->room * dims;
        for (const Piece& piece : pieces) {
            const float* from = piece.from + head * piece.head_next;
            // Keys that lie side by side are copied at once.
            const int64_t together = piece.key_next == dims ? std::max<int64_t>(piece.last - piece.first, 1) : 1;
            for (int64_t key = piece.first; key < piece.last; key += together)
                std::memcpy(to + (key - row->next_start) * dims, from + (key - piece.base) * piece.key_next,
                            sizeof(float) * together * dims);
        }
        const int64_t kept = row->position - row->next_start;
        if (fresh) std::memset(to + kept * dims, 0, sizeof(float) * (row->room - kept) * dims);
    }
};

bool fits(const Array& array, const AttentionLayer& layer, int dims, int64_t keys) {
    return array.dtype() == mx::float32 && array.ndim() == 4 && array.shape(0) == 1 && array.shape(1) == layer.key_heads &&
           array.shape(2) >= keys && array.shape(3) == dims;
}

void check(const AttentionLayer& layer, const RowPlan& row, const Held& held) {
    for (int i = 0; i < 4; i++) {
        const int64_t keys = i < 2 ? row.position - row.start : row.lent;
        if (held[i].has_value() != held[i / 2 * 2].has_value() ||
            (held[i] && !fits(*held[i], layer, i % 2 ? layer.value_dims : layer.dims, keys)))
            throw std::invalid_argument("a cache does not fit the layer");
    }
    if (held[2].has_value() != (row.lent > 0) || (!held[0] && row.position != std::max(row.next_start, row.lent)))
        throw std::invalid_argument("a row has keys that nobody holds");
}

}  // namespace

// Keys or values that are lent to a row: of each head and key, `head_next` and `key_next` floats apart.
struct RowAttention::Lent {
    const float* at = nullptr;
    int64_t head_next = 0, key_next = 0;
    std::vector<float> spare;

    Lent() = default;
    explicit Lent(const Array& array) : at(array.data<float>()), head_next(array.strides(1)), key_next(array.strides(2)) {
        if (array.strides(3) == 1 || array.shape(3) == 1) return;
        at = in_order(array, spare);
        key_next = array.shape(3), head_next = array.shape(2) * key_next;
    }
};

// Keys or values of each row.
struct RowAttention::Cache {
    std::vector<float*> own;
    std::vector<Lent> lent;
};

void RowAttention::take(const Caches& caches, int length, std::vector<Array>& inputs, std::vector<mx::Shape>& shapes) {
    if (caches.size() != rows.size()) throw std::invalid_argument("one cache for each row");
    for (size_t i = 0; i < rows.size(); i++) {
        const RowPlan& row = rows[i];
        if (row.length < 0 || row.length > length || row.next_start < row.start || row.start < 0 ||
            row.next_start > row.position || row.position + row.length - row.next_start > row.room || row.next_lent < 0 ||
            row.next_lent > row.lent || row.lent > row.position || (row.lent && row.next_start))
            throw std::invalid_argument("a row does not fit its cache");
        check(*layer, row, caches[i]);
        held.push_back({-1, -1});
        for (int which : {0, 1}) {
            if (!caches[i][2 * which]) continue;
            held.back()[which] = static_cast<int>(inputs.size());
            inputs.push_back(*caches[i][2 * which]);
            inputs.push_back(*caches[i][2 * which + 1]);
        }
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
        const Array* before = held[row][0] < 0 ? nullptr : &inputs[held[row][0] + i / rows.size()];
        const bool stays = before && before->shape(2) == rows[row].room && rows[row].start == rows[row].next_start;
        if (stays && rows[row].owned && before->flags().row_contiguous) {
            output.copy_shared_buffer(*before);
        } else {
            output.set_data(mx::allocator::malloc(output.nbytes()));
        }
    }
}

// Keys (which = 0) or values (1) of each row, after what was there before has been brought over.
RowAttention::Cache RowAttention::caches(const std::vector<Array>& inputs, std::vector<Array>& outputs, int which) const {
    Cache cache;
    std::vector<Move> moves;
    std::vector<std::vector<float>> spare(rows.size());
    const int dims = which ? layer->value_dims : layer->dims;
    for (size_t i = 0; i < rows.size(); i++) {
        const RowPlan& row = rows[i];
        float* now = outputs[1 + which * rows.size() + i].data<float>();
        const Array* before = held[i][0] < 0 ? nullptr : &inputs[held[i][0] + which];
        const float* from = before ? in_order(*before, spare[i]) : nullptr;
        cache.own.push_back(now);
        cache.lent.push_back(held[i][1] < 0 ? Lent() : Lent(inputs[held[i][1] + which]));
        Move move{{}, from != now, &row, dims, now};
        if (from && from != now) {
            const int64_t room = int64_t{before->shape(2)} * dims;
            move.pieces[0] = {from, room, dims, row.start, std::max(row.next_start, row.lent), row.position};
        }
        if (const Lent& lent = cache.lent.back(); lent.at)
            move.pieces[1] = {lent.at, lent.head_next, lent.key_next, 0, row.next_lent, row.lent};
        if (move.fresh || row.next_lent < row.lent) moves.push_back(move);
    }
    parallel(static_cast<int>(moves.size()) * layer->key_heads,
             [&](int each) { moves[each / layer->key_heads](each % layer->key_heads); });
    return cache;
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
    const Cache keys = caches(inputs, outputs, 0), values = caches(inputs, outputs, 1);
    in_runs(all, width, [&](int64_t first, int64_t last) {
        std::vector<float> room(l.speeds.size() * 2 + l.dims);
        for (int64_t i = first; i < last; i++) {
            const int64_t row = i / length;
            if (i % length >= rows[row].length) continue;
            enter(i, i % length, rows[row], from, queries.get(), keys.own[row], values.own[row], room.data());
        }
    });
    std::vector<Attention> tasks;
    for (int64_t b = 0; b < batch; b++) {
        const RowPlan& row = rows[b];
        float* to = out + b * length * out_width;
        std::memset(to + row.length * out_width, 0, sizeof(float) * (length - row.length) * out_width);
        for (int head = 0; row.length && head < l.key_heads; head++) {
            tasks.push_back(task(b, head, queries.get() + b * length * width, keys, values, to));
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

Attention RowAttention::task(size_t number, int head, const float* queries, const Cache& keys, const Cache& values,
                             float* out) const {
    const AttentionLayer& l = *layer;
    const RowPlan& row = rows[number];
    const Lent &lent_k = keys.lent[number], &lent_v = values.lent[number];
    const int each = l.heads / l.key_heads, first = head * each;
    Attention task{};
    task.q = queries + int64_t{first} * l.dims;
    task.k = keys.own[number] + head * row.room * l.dims;
    task.v = values.own[number] + head * row.room * l.value_dims;
    if ((task.lent = row.next_lent)) {
        task.lent_k = lent_k.at + head * lent_k.head_next, task.lent_k_next = lent_k.key_next;
        task.lent_v = lent_v.at + head * lent_v.head_next, task.lent_v_next = lent_v.key_next;
    }
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
                                 const Array& v, const Caches& caches, std::vector<RowPlan> rows) {
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
    attention->take(caches, q.shape(1), inputs, shapes);
    const std::vector<mx::Dtype> types(shapes.size(), mx::float32);
    return Array::make_arrays(std::move(shapes), types, std::make_shared<Node>(std::move(attention)), inputs);
}

}  // namespace squish

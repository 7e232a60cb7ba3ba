#include "row_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "pool.h"

namespace mx = mlx::core;

namespace squish {
namespace {

// The bytes of an array in row order: its own memory where they lie so there, else a copy in `spare`.
const char* bytes_in_order(const Array& array, std::vector<char>& spare) {
    const char* from = array.data<char>();
    if (array.flags().row_contiguous) return from;
    const size_t item = array.itemsize();
    spare.resize(array.nbytes());
    for (size_t i = 0; i < array.size(); i++) {
        size_t rest = i;
        int64_t at = 0;
        for (int axis = static_cast<int>(array.ndim()) - 1; axis >= 0; axis--) {
            at += static_cast<int64_t>(rest % array.shape(axis)) * array.strides(axis);
            rest /= array.shape(axis);
        }
        std::memcpy(spare.data() + i * item, from + at * static_cast<int64_t>(item), item);
    }
    return spare.data();
}

// Keys `first` to `last` - 1 of each head. from: that of the number `base`; strides in bytes.
struct Piece {
    const char* from;
    int64_t head_next, key_next, base, first, last;
};

// What comes into the keys or values of a row before its new ones. fresh: the memory is new; what is not used yet is zeros.
// size: bytes of a vector.
struct Move {
    Piece pieces[2];
    bool fresh;
    const RowPlan* row;
    int64_t size;
    char* now;

    void operator()(int64_t head) const {
        char* to = now + head * row->room * size;
        for (const Piece& piece : pieces) {
            const char* from = piece.from + head * piece.head_next;
            // Keys that lie side by side are copied at once.
            const int64_t together = piece.key_next == size ? std::max<int64_t>(piece.last - piece.first, 1) : 1;
            for (int64_t key = piece.first; key < piece.last; key += together)
                std::memcpy(to + (key - row->next_start) * size, from + (key - piece.base) * piece.key_next, size * together);
        }
        const int64_t kept = row->position - row->next_start;
        if (fresh) std::memset(to + kept * size, 0, size * (row->room - kept));
    }
};

bool fits(const Array& array, const AttentionLayer& layer, int which, int64_t keys) {
    return array.dtype() == layer.type() && array.ndim() == 4 && array.shape(0) == 1 && array.shape(1) == layer.key_heads &&
           array.shape(2) >= keys && array.shape(3) == layer.last_axis(which);
}

void check(const AttentionLayer& layer, const RowPlan& row, const Held& held) {
    for (int i = 0; i < 4; i++) {
        const int64_t keys = i < 2 ? row.position - row.start : row.lent;
        if (held[i].has_value() != held[i / 2 * 2].has_value() ||
            (held[i] && !fits(*held[i], layer, i % 2, keys)))
            throw std::invalid_argument("a cache does not fit the layer");
    }
    if (held[2].has_value() != (row.lent > 0) || (!held[0] && row.position != std::max(row.next_start, row.lent)))
        throw std::invalid_argument("a row has keys that nobody holds");
}

}  // namespace

// Keys or values that are lent to a row: of each head and key, `head_next` and `key_next` bytes apart.
struct RowAttention::Lent {
    const char* at = nullptr;
    int64_t head_next = 0, key_next = 0;
    std::vector<char> spare;

    Lent() = default;
    explicit Lent(const Array& array) : at(array.data<char>()) {
        const int64_t item = static_cast<int64_t>(array.itemsize());
        head_next = array.strides(1) * item, key_next = array.strides(2) * item;
        if (array.strides(3) == 1 || array.shape(3) == 1) return;
        at = bytes_in_order(array, spare);
        key_next = array.shape(3) * item, head_next = array.shape(2) * key_next;
    }
};

// Keys or values of each row.
struct RowAttention::Cache {
    std::vector<char*> own;
    std::vector<Lent> lent;
};

void RowAttention::take(const Caches& caches, int length, std::vector<Array>& inputs) {
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
}

std::vector<Array> RowAttention::outputs(std::shared_ptr<const RowAttention> operation, mx::Shape shape,
                                         std::vector<Array> inputs) {
    const AttentionLayer& layer = *operation->layer;
    std::vector<mx::Shape> shapes{std::move(shape)};
    for (int which : {0, 1}) {
        for (auto& row : operation->rows)
            shapes.push_back({1, layer.key_heads, static_cast<int>(row.room), layer.last_axis(which)});
    }
    std::vector<mx::Dtype> types(shapes.size(), layer.type());
    types[0] = mx::float32;
    return Array::make_arrays(std::move(shapes), types, std::make_shared<Node>(std::move(operation)), std::move(inputs));
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
    std::vector<std::vector<char>> spare(rows.size());
    const int64_t size = layer->bytes(which);
    for (size_t i = 0; i < rows.size(); i++) {
        const RowPlan& row = rows[i];
        char* now = outputs[1 + which * rows.size() + i].data<char>();
        const Array* before = held[i][0] < 0 ? nullptr : &inputs[held[i][0] + which];
        const char* from = before ? bytes_in_order(*before, spare[i]) : nullptr;
        cache.own.push_back(now);
        cache.lent.push_back(held[i][1] < 0 ? Lent() : Lent(inputs[held[i][1] + which]));
        Move move{{}, from != now, &row, size, now};
        if (from && from != now)
            move.pieces[0] = {from, before->shape(2) * size, size, row.start, std::max(row.next_start, row.lent), row.position};
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
        std::vector<float> room(l.speeds.size() * 2 + 2 * l.dims);
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
                         char* keys, char* values, float* room) const {
    const AttentionLayer& l = *layer;
    const LayerKernels& with = layer_kernels();
    const int pairs = static_cast<int>(l.speeds.size());
    float *cosine = room, *sine = room + pairs, *normed = room + 2 * pairs, *turned = normed + l.dims;
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
        turn(from[1] + (index * l.key_heads + head) * l.dims, l.k_norm, turned);
        with.keep(turned, l.dims, l.kept, keys + place * l.bytes(0));
        with.keep(from[2] + (index * l.key_heads + head) * l.value_dims, l.value_dims, l.kept, values + place * l.bytes(1));
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
    task.kept = l.kept;
    task.k = keys.own[number] + head * row.room * l.bytes(0);
    task.v = values.own[number] + head * row.room * l.bytes(1);
    if ((task.lent = row.next_lent)) {
        task.lent_k = lent_k.at + head * lent_k.head_next, task.lent_k_next = lent_k.key_next;
        task.lent_v = lent_v.at + head * lent_v.head_next, task.lent_v_next = lent_v.key_next;
    }
    task.out = out + int64_t{first} * l.value_dims;
    task.q_next = int64_t{l.heads} * l.dims, task.q_head = l.dims;
    task.out_next = int64_t{l.heads} * l.value_dims, task.out_head = l.value_dims;
    task.k_next = l.bytes(0), task.v_next = l.bytes(1);
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
    mx::Shape shape{q.shape(0), q.shape(1), layer->heads * layer->value_dims};
    auto attention = std::make_shared<RowAttention>("SquishRowAttention", std::move(layer), std::move(rows));
    attention->take(caches, q.shape(1), inputs);
    return RowAttention::outputs(std::move(attention), std::move(shape), std::move(inputs));
}

}  // namespace squish

// What Python may call of the layers' operations. cpu/functions.py and cpu/fusion.py say what they are for.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "block.h"
#include "draw.h"
#include "layer_ops.h"
#include "row_attention.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace squish {

using Rows = std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, bool, int64_t, int64_t>>;

namespace {

// A layer as Python holds it. nanobind's own shared_ptr to a Python object takes the GIL when it ends, which a node
// does on MLX's thread: while Python waits for that thread with the GIL, as mx.clear_cache does, both wait forever.
template <typename Layer>
struct Shared {
    std::shared_ptr<const Layer> layer;
};

Shared<AttentionLayer> layer(int heads, int key_heads, int dims, int value_dims, float scale, int window,
                                      std::vector<float> speeds, bool adjacent, float position_scale, float stretch,
                                      std::vector<float> q_norm, std::vector<float> k_norm, float norm_eps,
                                      float norm_one, std::vector<float> sinks, int kv_bits) {
    const size_t size = static_cast<size_t>(dims);
    if (heads < 1 || key_heads < 1 || heads % key_heads || dims < 1 || value_dims < 1 || window < 0 ||
        2 * speeds.size() > size || (!q_norm.empty() && q_norm.size() != size) ||
        (!k_norm.empty() && k_norm.size() != size) || (!sinks.empty() && sinks.size() != static_cast<size_t>(heads)) ||
        (kv_bits != kFloat && kv_bits != kHalf && kv_bits != kByte))
        throw std::invalid_argument("an attention layer of sizes that do not fit each other");
    return {std::make_shared<AttentionLayer>(AttentionLayer{heads, key_heads, dims, value_dims, window, scale,
                                                            std::move(speeds), adjacent, position_scale, stretch,
                                                            std::move(q_norm), std::move(k_norm), norm_eps, norm_one,
                                                            std::move(sinks), static_cast<Kept>(kv_bits)})};
}

std::vector<RowPlan> plans(const Rows& rows) {
    std::vector<RowPlan> result;
    for (auto& [position, length, start, next_start, room, owned, lent, next_lent] : rows)
        result.push_back({position, length, start, next_start, room, owned, lent, next_lent});
    return result;
}

using Result = std::tuple<Array, std::vector<Array>, std::vector<Array>>;

// What a node returns, its caches by kind.
Result sorted(const std::vector<Array>& all, size_t rows) {
    const auto middle = all.begin() + 1 + static_cast<std::ptrdiff_t>(rows);
    return {all[0], {all.begin() + 1, middle}, {middle, all.end()}};
}

Result attend_rows(const Shared<AttentionLayer>& held, const Array& q, const Array& k, const Array& v,
                   const Caches& caches, const Rows& rows) {
    return sorted(row_attention(held.layer, q, k, v, caches, plans(rows)), rows.size());
}

Result run_block(const Shared<BlockLayer>& held, const Array& x, bool ends, const Caches& caches, const Rows& rows) {
    return sorted(block(held.layer, x, ends, caches, plans(rows)), rows.size());
}

using Norms = std::vector<std::pair<std::vector<float>, float>>;

Shared<BlockLayer> block_layer(const Shared<AttentionLayer>& attention, const Norms& norms, float one,
                             const std::vector<Matrix>& matrices, int kind, bool exact) {
    if (norms.size() != 4 || matrices.size() != 7 || kind < kSilu || kind > kGelu)
        throw std::invalid_argument("a block has four norms and seven matrices");
    auto& m = matrices;
    auto layer = std::make_shared<BlockLayer>(BlockLayer{attention.layer, {}, one, m[0], m[1], m[2], m[3], m[4], m[5],
                                                         m[6], static_cast<Gate>(kind), exact});
    for (size_t i = 0; i < 4; i++) layer->norms[i] = {norms[i].first, norms[i].second};
    check(*layer);
    return {std::move(layer)};
}

}  // namespace

void bind_layers(nb::module_& m) {
    m.def("norm", &norm, "x"_a, "weight"_a, "residual"_a = nb::none(), "one"_a = 0.0f, "eps"_a = 1e-5f);
    m.def("draw", [](const Array& logprobs, std::vector<double> uniforms, double temperature, double top_p, double min_p,
                     int64_t top_k) { return draw(logprobs, std::move(uniforms), {temperature, top_p, min_p, top_k}); },
          "logprobs"_a, "uniforms"_a, "temperature"_a, "top_p"_a, "min_p"_a, "top_k"_a);
    m.def("log_sum", &log_sum, "x"_a);
    m.def("gate", [](const Array& gate, const Array& up, int kind) { return gated(gate, up, static_cast<Gate>(kind)); },
          "gate"_a, "up"_a, "kind"_a);
    m.def("speeds", &speeds, "dims"_a, "base"_a = nb::none(), "periods"_a = nb::none());
    m.def("rotate", &rotated, "x"_a, "dims"_a, "adjacent"_a, "scale"_a, "speeds"_a, "offset"_a);
    m.def("attention", &attention, "q"_a, "k"_a, "v"_a, "scale"_a, "causal"_a, "window"_a = 0, "mask"_a = nb::none(),
          "sinks"_a = nb::none());
    nb::class_<Shared<AttentionLayer>>(m, "AttentionLayer");
    m.def("attention_layer", &layer, "heads"_a, "key_heads"_a, "dims"_a, "value_dims"_a, "scale"_a, "window"_a,
          "speeds"_a, "adjacent"_a, "position_scale"_a, "stretch"_a, "q_norm"_a, "k_norm"_a, "norm_eps"_a, "norm_one"_a,
          "sinks"_a, "kv_bits"_a = static_cast<int>(kFloat));
    nb::class_<Shared<BlockLayer>>(m, "BlockLayer");
    m.def("block_layer", &block_layer, "attention"_a, "norms"_a, "one"_a, "matrices"_a, "kind"_a, "exact"_a);
    m.def("block", &run_block, "layer"_a, "x"_a, "ends"_a, "caches"_a, "rows"_a);
    m.def("attend_rows", &attend_rows, "layer"_a, "q"_a, "k"_a, "v"_a, "caches"_a, "rows"_a);
}

}  // namespace squish

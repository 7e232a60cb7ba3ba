// A transformer's block as one node of MLX's graph: norm, attention, norm, gated MLP, and the sums between them.
#pragma once

#include "matrix.h"
#include "row_attention.h"

namespace squish {

// Weights of a norm; empty: there is none.
struct NormLayer {
    std::vector<float> weight;
    float eps;
};

// norms: before attention, after it (or none), before the MLP, after it (or none). one: what they add to weights.
// exact: products in float32.
struct BlockLayer {
    std::shared_ptr<const AttentionLayer> attention;
    NormLayer norms[4];
    float one;
    Matrix q, k, v, o, gate, up, down;
    Gate kind;
    bool exact;

    int width() const { return q.layout.k; }
};

// Throws std::invalid_argument where the parts do not fit each other.
void check(const BlockLayer& block);

// x: (batch, length, width). Returns the same shape, with `ends` (batch, 1, width): only what comes of each row's last
// token; then the caches as row_attention does.
std::vector<Array> block(std::shared_ptr<const BlockLayer> layer, const Array& x, bool ends, const Caches& caches,
                         std::vector<RowPlan> rows);

}  // namespace squish

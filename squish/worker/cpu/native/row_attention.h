// The attention of a model's layer over sequences that each have a cache of their own, as one node of MLX's graph:
// norms of the heads, rotation, the new keys and values put into the caches, and attention.
#pragma once

#include "layer_ops.h"

namespace squish {

// What a layer's attention is. speeds: radians a position of each rotated pair; stretch: what rotated numbers are
// multiplied by. q_norm, k_norm: weights of a norm of each head, empty for none. window: keys seen; 0: all.
struct AttentionLayer {
    int heads, key_heads, dims, value_dims, window;
    float scale;
    std::vector<float> speeds;
    bool adjacent;
    float position_scale, stretch;
    std::vector<float> q_norm, k_norm;
    float norm_eps, norm_one;
    std::vector<float> sinks;
};

// Where a sequence stands. position: tokens it had before; length: tokens that are new, the first of the batch's row;
// start, next_start: the number of the first key in its cache, before and after; room: keys its cache holds after.
struct RowPlan {
    int64_t position, length, start, next_start, room;
};

// q, k, v: (batch, length, heads · dims), contiguous or not. keys, values: of each sequence, (1, key heads, room, dims),
// or none yet; they are written to in place where nobody else holds them.
// Returns (batch, length, heads · value dims), then the keys of each sequence, then the values.
std::vector<Array> row_attention(std::shared_ptr<const AttentionLayer> layer, const Array& q, const Array& k,
                                 const Array& v, const std::vector<std::optional<Array>>& keys,
                                 const std::vector<std::optional<Array>>& values, const std::vector<RowPlan>& rows);

}  // namespace squish

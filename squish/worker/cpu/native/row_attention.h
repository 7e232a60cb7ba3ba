// The attention of a model's layer over sequences that each have a cache of their own: norms of the heads, rotation, the
// new keys and values put into the caches, and attention.
#pragma once

#include <array>

#include "layer_ops.h"
#include "node.h"

namespace squish {

// What a layer's attention is. speeds: radians a position of each rotated pair; stretch: what rotated numbers are
// multiplied by. q_norm, k_norm: weights of a norm of each head, empty for none. window: keys seen; 0: all.
// kept: how keys and values lie in the caches.
struct AttentionLayer {
    int heads, key_heads, dims, value_dims, window;
    float scale;
    std::vector<float> speeds;
    bool adjacent;
    float position_scale, stretch;
    std::vector<float> q_norm, k_norm;
    float norm_eps, norm_one;
    std::vector<float> sinks;
    Kept kept;

    // Of the arrays of keys (which = 0) and values (1): bytes of a vector, numbers on the last axis, and their type.
    int64_t bytes(int which) const { return kept_bytes(kept, which ? value_dims : dims); }
    int last_axis(int which) const { return static_cast<int>(kept == kByte ? bytes(which) : which ? value_dims : dims); }
    mlx::core::Dtype type() const {
        return kept == kFloat ? mlx::core::float32 : kept == kHalf ? mlx::core::float16 : mlx::core::uint8;
    }
};

// Where a sequence stands. position: tokens it had before; length: tokens that are new, the first of the batch's row;
// start, next_start: the number of the first key in its cache, before and after; room: keys its cache holds after.
// owned: this sequence alone adds to its cache. Then new keys are written behind the others in the same memory, also
// while somebody reads those; MLX's rule, that nobody else may hold the array, is never met while steps overlap.
// lent, next_lent: how many of the first keys are read from memory that others read too, before and after. What lies
// between is copied; so a sequence begins at once where an earlier one was, and has all keys of its own after some steps.
struct RowPlan {
    int64_t position, length, start, next_start, room;
    bool owned;
    int64_t lent, next_lent;
};

// Of a sequence: its own keys and values, and those that are lent to it. Each pair may be missing.
using Held = std::array<std::optional<Array>, 4>;
using Caches = std::vector<Held>;

// A node whose last inputs are the caches that sequences have, and whose last outputs, after the first, are those they
// get: the keys of each, then the values of each.
struct RowAttention : Operation {
    std::shared_ptr<const AttentionLayer> layer;
    std::vector<RowPlan> rows;
    // Which input holds the own keys of a row, and which those lent to it; the values' is the next; -1: none.
    std::vector<std::array<int, 2>> held;

    RowAttention(const char* name, std::shared_ptr<const AttentionLayer> layer, std::vector<RowPlan> rows)
        : Operation(name), layer(std::move(layer)), rows(std::move(rows)) {}

    // Adds the caches to the inputs. Throws for what does not fit the layer.
    void take(const Caches& caches, int length, std::vector<Array>& inputs);
    // What a node of this operation returns: an array of a shape, float32, then the caches.
    static std::vector<Array> outputs(std::shared_ptr<const RowAttention> operation, mlx::core::Shape shape,
                                      std::vector<Array> inputs);

    void place(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override;
    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override;

    // q, k, v: (batch, length, heads · dims) in row order → out: (batch, length, heads · value dims).
    void attend_all(const float* const* from, int64_t length, const std::vector<Array>& inputs,
                    std::vector<Array>& outputs, float* out) const;

   private:
    struct Lent;
    struct Cache;

    Cache caches(const std::vector<Array>& inputs, std::vector<Array>& outputs, int which) const;
    void enter(int64_t index, int64_t at, const RowPlan& row, const float* const* from, float* queries, char* keys,
               char* values, float* room) const;
    Attention task(size_t row, int head, const float* queries, const Cache& keys, const Cache& values, float* out) const;
};

// q, k, v: (batch, length, heads · dims). caches: of each sequence, (1, key heads, room, last axis) each.
// Returns (batch, length, heads · value dims), then the keys of each sequence, then the values.
std::vector<Array> row_attention(std::shared_ptr<const AttentionLayer> layer, const Array& q, const Array& k,
                                 const Array& v, const Caches& caches, std::vector<RowPlan> rows);

}  // namespace squish

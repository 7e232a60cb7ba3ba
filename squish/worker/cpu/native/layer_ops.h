// What lies between the products of a model, as nodes of MLX's graph: norms, rotation, gates, attention.
#pragma once

#include <mlx/array.h>

#include <optional>
#include <variant>
#include <vector>

#include "layer_kernels.h"

namespace squish {

using Array = mlx::core::array;

// The table of the instruction set that the products use too.
const LayerKernels& layer_kernels();

// The numbers of a float32 array in row order: its own memory where they lie so there, else a copy in `spare`.
const float* in_order(const Array& array, std::vector<float>& spare);

// x / rms(x) · (weight + one) over the last axis. With a residual: (of x + residual, x + residual).
std::vector<Array> norm(const Array& x, const Array& weight, const std::optional<Array>& residual, float one, float eps);

// The logarithm of the sum of e to the power of each number, over the last axis, which stays with size 1.
Array log_sum(const Array& x);

// What the gate lets through of `up`, number by number.
Array gated(const Array& gate, const Array& up, Gate kind);

// Radians a position, one for each pair of `dims` numbers; from `periods` where the model has its own.
std::vector<float> speeds(int dims, std::optional<float> base, const std::optional<std::vector<float>>& periods);

// x: (batch, heads, length, size), turned by its positions; offset: of the first, one for all or (batch,) int32.
Array rotated(const Array& x, int dims, bool adjacent, float scale, const std::vector<float>& speeds,
              const std::variant<int, Array>& offset);

// mx.fast.scaled_dot_product_attention of float32 arrays. mask: bool or float32, (batch, heads, length, keys), broadcast.
// window: keys that a query sees, its own included; 0: all.
Array attention(const Array& q, const Array& k, const Array& v, float scale, bool causal, int window,
                const std::optional<Array>& mask, const std::optional<Array>& sinks);

// Runs the attention of tasks with memory that each thread keeps.
void attend(const std::vector<Attention>& tasks);

}  // namespace squish

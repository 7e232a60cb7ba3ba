// A packed matrix, and what the primitives that read one share. See kernels.h for how it lies in memory.
#pragma once

#include <mlx/array.h>

#include "kernels.h"

namespace squish {

// Weights as the kernels read them. Its numbers were checked against the buffer when it was made, and never change.
struct Matrix {
    Layout layout;
    mlx::core::array data;  // bytes

    const uint8_t* bytes() const { return data.data<uint8_t>(); }
};

// The kernels in use, chosen once: the fastest that the processor can run, or those that SQUISH_CPU_KERNEL names.
const Kernels& kernels();

// MLX's affine quantization (weight: (n, k · bits / 32) uint32; scales, biases: (n, k / group)), repacked. Throws
// std::invalid_argument for what the kernels do not take.
Matrix pack(const mlx::core::array& weight, const mlx::core::array& scales, const mlx::core::array& biases, int bits,
            int group);

// x · Wᵀ for each matrix, float32, in one node of the graph. x: (..., k) float32.
std::vector<mlx::core::array> products(const mlx::core::array& x, const std::vector<Matrix>& matrices);

}  // namespace squish

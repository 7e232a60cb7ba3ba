// A packed matrix, and the primitives that read one. See kernels.h for how it lies in memory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <mlx/array.h>

#include "kernels.h"

namespace squish {

// Weights as the kernels read them. Its numbers were checked against the buffer when it was made, and never change.
struct Matrix {
    Layout layout;
    mlx::core::array data;                  // (panels, bytes of a panel) uint8
    std::optional<mlx::core::array> added;  // (n,) float32: added to each product

    const uint8_t* bytes() const { return data.data<uint8_t>(); }
};

// The kernels in use: the fastest that the processor can run, or those that SQUISH_CPU_KERNEL names.
const Kernels& kernels();

// From now on, those of this name. Throws std::invalid_argument where the processor has none such.
void use_kernels(const std::string& name);

// What MLX's quantize made (weight: (n, k · bits / 32) uint32; scales, biases: (n, k / group)), repacked; mode as MLX
// calls it. Throws std::invalid_argument for what the kernels do not take.
Matrix pack(const mlx::core::array& weight, const mlx::core::array& scales,
            const std::optional<mlx::core::array>& biases, int bits, int group, const std::string& mode,
            const std::optional<mlx::core::array>& added);

// Scales of a K-quant of GGUF's, as gguf/superblocks.py takes them apart.
struct SuperScales {
    mlx::core::array scales;                    // (n, k / 32) uint8; (n, k / 16) of 2, 3 and 6 bits
    std::optional<mlx::core::array> minima;     // (n, k / 32) uint8, of 4 and 5 bits
    mlx::core::array of_scales;                 // (n, k / 256) float16: what scales are multiplied by
    std::optional<mlx::core::array> of_minima;  // the same for minima, of 2, 4 and 5 bits
};

// A K-quant. weight: (n, k · bits / 32) uint32, codes as MLX packs them.
Matrix pack_super(const mlx::core::array& weight, const SuperScales& scales, int bits,
                  const std::optional<mlx::core::array>& added);

// The same for (n, k) floating-point weights.
Matrix pack_dense(const mlx::core::array& weight, const std::optional<mlx::core::array>& added);

// x · Wᵀ for each matrix, float32, in one node of the graph. x: (..., k) float32. exact: in float32, else with
// activations of 8 bits where the format has them.
std::vector<mlx::core::array> products(const mlx::core::array& x, const std::vector<Matrix>& matrices, bool exact);

// The same within the work of another node. x: (rows, k) without gaps; y: (rows, n) for each matrix.
void multiply(const float* x, int64_t rows, const std::vector<const Matrix*>& matrices, const std::vector<float*>& y,
              bool exact);

// The same where each row of x goes to some of many matrices that are alike. x: (..., 1, k) float32; ids: (..., experts of
// a row), as many for each row of x. Gives (…, 1, n), as MLX's gather_mm does.
mlx::core::array experts(const mlx::core::array& x, const mlx::core::array& ids, const std::vector<Matrix>& matrices,
                         bool exact);

// Rows of the matrix as float32: (..., k) for ids (...). Ids count from the end where negative, and are bounded.
mlx::core::array lookup(const Matrix& matrix, const mlx::core::array& ids);

}  // namespace squish

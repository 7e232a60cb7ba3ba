// From log-probabilities to a token, as a node of MLX's graph, so that the next step can be queued before it is drawn.
#pragma once

#include <mlx/array.h>

#include <vector>

namespace squish {

// How a token is drawn: top_p, min_p and top_k (0: none) on the model's own distribution, then temperature (over 0).
struct Drawing {
    double temperature, top_p, min_p;
    int64_t top_k;
};

// logprobs: (rows, vocabulary) float32; uniforms: from 0 to 1, one for each row. Gives (rows,) uint32.
mlx::core::array draw(const mlx::core::array& logprobs, std::vector<double> uniforms, const Drawing& how);

}  // namespace squish

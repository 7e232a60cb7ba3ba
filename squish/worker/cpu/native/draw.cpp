#include "draw.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "layer_ops.h"
#include "node.h"

namespace mx = mlx::core;

namespace squish {
namespace {

constexpr float kFar = 16.0f;  // below the largest: what is further down has a share of e⁻¹⁶ of its, and rarely counts

struct Candidate {
    float value;
    uint32_t token;
    bool operator<(const Candidate& other) const {
        return value != other.value ? value > other.value : token < other.token;
    }
};

// Tokens above `least`, the most probable first; of the same probability, that of the lower number.
std::vector<Candidate> above(const float* row, int64_t size, float least) {
    std::vector<Candidate> found;
    for (int64_t i = 0; i < size; i++) {
        if (row[i] > least) found.push_back({row[i], static_cast<uint32_t>(i)});
    }
    std::sort(found.begin(), found.end());
    return found;
}

double covered(const std::vector<Candidate>& candidates) {
    double mass = 0;
    for (auto& each : candidates) mass += std::exp(static_cast<double>(each.value));
    return mass;
}

// The tokens that may be drawn, the most probable first; at least one.
std::vector<Candidate> allowed(const float* row, int64_t size, const Drawing& how) {
    const float most = *std::max_element(row, row + size);
    const float none = -std::numeric_limits<float>::infinity();
    std::vector<Candidate> candidates = above(row, size, most - kFar);
    const bool enough = (how.top_k == 0 || static_cast<int64_t>(candidates.size()) >= how.top_k) &&
                        (how.top_p >= 1 || covered(candidates) >= how.top_p) &&
                        (how.top_k > 0 || how.top_p < 1 || how.min_p > std::exp(-static_cast<double>(kFar)));
    if (!enough) candidates = above(row, size, none);
    size_t keep = candidates.size();
    if (how.top_p < 1) {
        double mass = 0;
        for (size_t i = 0; i < keep; i++) {
            mass += std::exp(static_cast<double>(candidates[i].value));
            if (mass >= how.top_p) keep = i + 1;
        }
    }
    if (how.min_p > 0) {
        const double least = static_cast<double>(candidates.empty() ? none : candidates[0].value) + std::log(how.min_p);
        size_t held = 0;
        while (held < keep && static_cast<double>(candidates[held].value) >= least) held++;
        keep = held;
    }
    if (how.top_k > 0) keep = std::min(keep, static_cast<size_t>(how.top_k));
    candidates.resize(std::max<size_t>(std::min(keep, candidates.size()), std::min<size_t>(1, candidates.size())));
    return candidates;
}

// Every token, in the order of numbers.
std::vector<Candidate> everything(const float* row, int64_t size) {
    std::vector<Candidate> candidates(size);
    for (int64_t i = 0; i < size; i++) candidates[i] = {row[i], static_cast<uint32_t>(i)};
    return candidates;
}

uint32_t drawn(const float* row, int64_t size, const Drawing& how, double uniform) {
    const bool all = how.top_p >= 1 && how.min_p == 0 && how.top_k == 0;
    const std::vector<Candidate> candidates = all ? everything(row, size) : allowed(row, size, how);
    if (candidates.empty()) return 0;  // a row of nothing but minus infinity
    float most = candidates[0].value;
    for (auto& each : candidates) most = std::max(most, each.value);
    std::vector<double> weights(candidates.size());
    double total = 0;
    for (size_t i = 0; i < candidates.size(); i++) {
        total += std::exp((static_cast<double>(candidates[i].value) - most) / how.temperature);
        weights[i] = total;
    }
    const double mark = uniform * total;
    size_t at = std::upper_bound(weights.begin(), weights.end(), mark) - weights.begin();
    // Rounding may lead past the last token of any weight, into those that a grammar forbids.
    const size_t last = std::lower_bound(weights.begin(), weights.end(), total) - weights.begin();
    return candidates[std::min({at, last, candidates.size() - 1})].token;
}

struct Draw : Operation {
    std::vector<double> uniforms;
    Drawing how;

    Draw(std::vector<double> uniforms, const Drawing& how)
        : Operation("SquishDraw"), uniforms(std::move(uniforms)), how(how) {}

    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        std::vector<float> spare;
        const float* x = in_order(inputs[0], spare);
        uint32_t* out = outputs[0].data<uint32_t>();
        const int64_t size = inputs[0].shape(1);
        for (size_t row = 0; row < uniforms.size(); row++) out[row] = drawn(x + row * size, size, how, uniforms[row]);
    }
};

}  // namespace

mx::array draw(const mx::array& logprobs, std::vector<double> uniforms, const Drawing& how) {
    if (logprobs.dtype() != mx::float32 || logprobs.ndim() != 2 || logprobs.shape(1) < 1 ||
        logprobs.shape(0) != static_cast<int>(uniforms.size()))
        throw std::invalid_argument("logprobs must be (rows, vocabulary) float32, and uniforms one for each row");
    if (!(how.temperature > 0) || how.top_k < 0) throw std::invalid_argument("temperature must be above 0");
    auto operation = std::make_shared<Draw>(std::move(uniforms), how);
    return mx::array({logprobs.shape(0)}, mx::uint32, std::make_shared<Node>(std::move(operation)), {logprobs});
}

}  // namespace squish

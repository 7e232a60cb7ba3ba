#include "block.h"

#include <cstring>
#include <stdexcept>

namespace mx = mlx::core;

namespace squish {
namespace {

constexpr int64_t kTogether = 512;  // tokens whose MLP is computed at a time: it is what takes the most memory

using Floats = std::unique_ptr<float[]>;

Floats room(int64_t size) { return Floats(new float[size]); }

struct Block : RowAttention {
    std::shared_ptr<const BlockLayer> block;
    bool ends;

    Block(std::shared_ptr<const BlockLayer> block, bool ends, std::vector<RowPlan> rows)
        : RowAttention("SquishBlock", block->attention, std::move(rows)), block(std::move(block)), ends(ends) {}

    void work(const std::vector<Array>& inputs, std::vector<Array>& outputs) const override {
        const BlockLayer& b = *block;
        const int64_t length = inputs[0].shape(1), tokens = inputs[0].shape(0) * length, width = b.width();
        const int64_t wanted = ends ? inputs[0].shape(0) : tokens;
        std::vector<float> spare;
        float* out = outputs[0].data<float>();
        const Floats normed = room(tokens * width);
        const float* x = in_order(inputs[0], spare);
        norm(0, x, nullptr, tokens, nullptr, normed.get());
        const Floats attended = attention(normed.get(), tokens, length, inputs, outputs);
        const Floats own = ends ? last_tokens(x, length, width) : nullptr;
        join(attended.get(), ends ? own.get() : x, wanted, out, normed.get());
        for (int64_t first = 0; first < wanted; first += kTogether) {
            const int64_t count = std::min(kTogether, wanted - first);
            mlp(normed.get() + first * width, count, out + first * width);
        }
    }

    // What attention gives, before the product with `o`: of all tokens, or of the last of each row.
    Floats attention(const float* normed, int64_t tokens, int64_t length, const std::vector<Array>& inputs,
                     std::vector<Array>& outputs) const {
        const BlockLayer& b = *block;
        const int64_t widths[] = {b.q.layout.n, b.k.layout.n, b.v.layout.n};
        const Floats q = room(tokens * widths[0]), k = room(tokens * widths[1]), v = room(tokens * widths[2]);
        multiply(normed, tokens, {&b.q, &b.k, &b.v}, {q.get(), k.get(), v.get()}, b.exact);
        Floats attended = room(tokens * b.o.layout.k);
        const float* from[] = {q.get(), k.get(), v.get()};
        attend_all(from, length, inputs, outputs, attended.get());
        return ends ? last_tokens(attended.get(), length, b.o.layout.k) : std::move(attended);
    }

    // `out` becomes x + what attention adds, and `normed` that, normed.
    void join(const float* attended, const float* x, int64_t tokens, float* out, float* normed) const {
        const BlockLayer& b = *block;
        const Floats product = room(tokens * b.width());
        multiply(attended, tokens, {&b.o}, {product.get()}, b.exact);
        norm(1, product.get(), nullptr, tokens, nullptr, product.get());
        norm(2, product.get(), x, tokens, out, normed);
    }

    Floats last_tokens(const float* from, int64_t length, int64_t width) const {
        Floats last = room(static_cast<int64_t>(rows.size()) * width);
        for (size_t row = 0; row < rows.size(); row++) {
            const int64_t at = row * length + std::max<int64_t>(rows[row].length - 1, 0);
            std::memcpy(last.get() + row * width, from + at * width, sizeof(float) * width);
        }
        return last;
    }

    // Adds the MLP of `normed` to `out`.
    void mlp(const float* normed, int64_t tokens, float* out) const {
        const BlockLayer& b = *block;
        const int64_t inner = b.gate.layout.n, width = b.width();
        const Floats gate = room(tokens * inner), up = room(tokens * inner), product = room(tokens * width);
        multiply(normed, tokens, {&b.gate, &b.up}, {gate.get(), up.get()}, b.exact);
        in_runs(tokens, 4 * inner, [&](int64_t first, int64_t last) {
            const int64_t at = first * inner;
            layer_kernels().gate(gate.get() + at, up.get() + at, (last - first) * inner, b.kind, gate.get() + at);
        });
        multiply(gate.get(), tokens, {&b.down}, {product.get()}, b.exact);
        norm(3, product.get(), nullptr, tokens, nullptr, product.get());
        const float* add = product.get();
        for (int64_t i = 0; i < tokens * width; i++) out[i] += add[i];
    }

    // The norm of that number, where the block has it. `out` may be `x`.
    void norm(int which, const float* x, const float* residual, int64_t tokens, float* total, float* out) const {
        const NormLayer& layer = block->norms[which];
        if (layer.weight.empty()) return;
        const int width = block->width();
        in_runs(tokens, width, [&](int64_t first, int64_t last) {
            for (int64_t at = first * width; at < last * width; at += width) {
                layer_kernels().norm(x + at, residual ? residual + at : nullptr, layer.weight.data(), block->one,
                                     layer.eps, width, total ? total + at : nullptr, out + at);
            }
        });
    }
};

}  // namespace

void check(const BlockLayer& b) {
    const AttentionLayer& a = *b.attention;
    const auto is = [](const Matrix& matrix, int64_t rows, int64_t columns) {
        return matrix.layout.n == rows && matrix.layout.k == columns;
    };
    const int64_t width = b.width(), inner = b.gate.layout.n;
    bool fits = is(b.q, int64_t{a.heads} * a.dims, width) && is(b.k, int64_t{a.key_heads} * a.dims, width) &&
                is(b.v, int64_t{a.key_heads} * a.value_dims, width) && is(b.o, width, int64_t{a.heads} * a.value_dims) &&
                is(b.gate, inner, width) && is(b.up, inner, width) && is(b.down, width, inner);
    for (int i = 0; i < 4; i++) {
        const size_t size = b.norms[i].weight.size();
        fits = fits && (size == static_cast<size_t>(width) || (size == 0 && i % 2));
    }
    if (!fits) throw std::invalid_argument("the parts of a block do not fit each other");
}

std::vector<Array> block(std::shared_ptr<const BlockLayer> layer, const Array& x, bool ends, const Caches& caches,
                         std::vector<RowPlan> rows) {
    if (x.dtype() != mx::float32 || x.ndim() != 3 || x.shape(0) != static_cast<int>(rows.size()) ||
        x.shape(2) != layer->width())
        throw std::invalid_argument("x must be (batch, length, width) float32");
    std::vector<Array> inputs{x};
    mx::Shape shape{x.shape(0), ends ? 1 : x.shape(1), x.shape(2)};
    auto operation = std::make_shared<Block>(std::move(layer), ends, std::move(rows));
    operation->take(caches, x.shape(1), inputs);
    return RowAttention::outputs(std::move(operation), std::move(shape), std::move(inputs));
}

}  // namespace squish

// Rows of a packed matrix as float32: an embedding's lookup, which unpacks nothing else.
#include <stdexcept>

#include <mlx/allocator.h>
#include <mlx/backend/cpu/encoder.h>
#include <mlx/ops.h>
#include <mlx/primitives.h>
#include <mlx/utils.h>

#include "matrix.h"
#include "numbers.h"
#include "pool.h"

namespace mx = mlx::core;

namespace squish {
namespace {

int field(const uint8_t* plane, int lane, int column, int bits) {
    const int fields = 8 / bits, step = column / 4;
    return plane[step / fields * PANEL * 4 + lane * 4 + column % 4] >> (step % fields * bits) & ((1 << bits) - 1);
}

int code(const Layout& l, const uint8_t* piece, int lane, int column) {
    const int low = l.bits >= 8 ? 8 : l.bits >= 4 ? 4 : 2;
    const int first = field(piece, lane, column, low);
    if (l.bits == low) return first;
    return first | field(piece + PANEL * l.piece() * low / 8, lane, column, l.bits - low) << low;
}

// A row of a K-quant.
void unpack_super(const Layout& l, const uint8_t* at, int lane, float* out) {
    const int parts = l.sum_columns() < UNIT ? 2 : 1;
    for (int64_t g = 0; g < l.groups(); g++) {
        const float d = number_at(FLOAT16, at, lane), m = l.biased() ? number_at(FLOAT16, at, PANEL + lane) : 0.0f;
        at += l.scales_bytes();
        for (int u = 0; u < SUPER / UNIT; u++, at += l.piece_bytes())
            for (int c = 0; c < UNIT; c++) {
                const int byte = at[c * parts / UNIT * PANEL + lane];
                float scale = d * (float)byte, bias = -m * (float)at[PANEL + lane];
                if (l.kind == SUPER_CENTERED) scale = d * (float)(byte - 128), bias = scale * l.center();
                if (l.kind == SUPER_HALVES) scale = d * (float)(byte & 15), bias = -m * (float)(byte >> 4);
                *out++ = (float)code(l, at + l.small_bytes(), lane, c) * scale + bias;
            }
    }
}

void unpack_row(const Layout& l, const uint8_t* weights, int64_t row, float* out) {
    const uint8_t* at = weights + row / PANEL * l.panel_bytes();
    const int lane = (int)(row % PANEL);
    if (l.super()) return unpack_super(l, at, lane, out);
    if (l.kind == DENSE) {
        for (int c = 0; c < l.k; c++) out[c] = number_at(l.number, at, (int64_t)c * PANEL + lane);
        return;
    }
    for (int64_t g = 0; g < l.groups(); g++) {
        const float scale = number_at(l.number, at, lane);
        const float bias = l.kind == AFFINE ? number_at(l.number, at + PANEL * l.number_bytes(), lane) : scale * l.center();
        at += l.scales_bytes();
        for (int first = 0; first < l.group; first += l.piece(), at += l.piece_bytes())
            for (int c = 0; c < l.piece(); c++) {
                const int q = code(l, at, lane, c);
                if (l.kind == AFFINE || l.kind == CENTERED) *out++ = (float)q * scale + bias;
                else if (l.kind == FP8_KIND) *out++ = from_e4m3((uint8_t)q) * scale;
                else *out++ = (float)(FP4[q] - FP4_OFFSET) * 0.5f * scale;
            }
    }
}

class Lookup : public mx::UnaryPrimitive {
   public:
    Lookup(mx::Stream stream, Matrix matrix) : UnaryPrimitive(stream), matrix_(std::move(matrix)) {}

    void eval_cpu(const std::vector<mx::array>& inputs, mx::array& output) override {
        output.set_data(mx::allocator::malloc(output.nbytes()));
        auto& encoder = mx::cpu::get_command_encoder(stream());
        encoder.set_input_array(inputs[0]);
        encoder.set_output_array(output);
        encoder.dispatch([ids = mx::array::unsafe_weak_copy(inputs[0]), to = mx::array::unsafe_weak_copy(output),
                          matrix = matrix_]() mutable {
            const Layout& layout = matrix.layout;
            const int32_t* rows = ids.data<int32_t>();
            float* out = to.data<float>();
            parallel((int)ids.size(), [&](int i) {
                // As MLX takes them: from the end where negative. What is out of range reads no memory that is not ours.
                int64_t row = rows[i] < 0 ? (int64_t)rows[i] + layout.n : rows[i];
                row = row < 0 ? 0 : row >= layout.n ? layout.n - 1 : row;
                unpack_row(layout, matrix.bytes(), row, out + (int64_t)i * layout.k);
            });
        });
    }
    void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
        throw std::runtime_error("packed matrices are read on the CPU only");
    }
    const char* name() const override { return "SquishLookup"; }

   private:
    Matrix matrix_;
};

}  // namespace

mx::array lookup(const Matrix& matrix, const mx::array& ids) {
    const mx::Stream stream = mx::default_stream(mx::Device::cpu);
    mx::Shape shape = ids.shape();
    shape.push_back(matrix.layout.k);
    return mx::array(std::move(shape), mx::float32, std::make_shared<Lookup>(stream, matrix),
                     {mx::contiguous(mx::astype(ids, mx::int32, stream), false, stream)});
}

}  // namespace squish

// Products of activations with packed matrices, as a primitive of MLX's.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include <mlx/allocator.h>
#include <mlx/backend/cpu/encoder.h>
#include <mlx/ops.h>
#include <mlx/primitives.h>
#include <mlx/utils.h>

#include "matrix.h"
#include "pool.h"

namespace mx = mlx::core;

namespace squish {
namespace {

// Products of a chunk, so that taking it costs a thousandth: some 10 µs.
constexpr int64_t CHUNK = 1 << 18;
constexpr int ROW_BLOCK = 128;  // rows of x that stay in a core's cache while panels pass by

// Memory of one product, kept for the next.
struct Scratch {
    char* memory = nullptr;
    size_t held = 0;
    char* take(size_t bytes) {
        if (bytes > held) {
            std::free(memory);
            memory = (char*)std::aligned_alloc(64, (bytes + 63) / 64 * 64);
            held = memory ? bytes : 0;
            if (!memory) throw std::bad_alloc();
        }
        return memory;
    }
    ~Scratch() { std::free(memory); }
};

thread_local Scratch scratch;

struct Rows {
    const float* first;
    int64_t count, stride;
};

Activations quantized(const Kernels& with, const Rows& x, int k, char* memory) {
    const int64_t units = k / UNIT;
    Activations to;
    to.codes = (int8_t*)memory;
    to.scales = (float*)(memory + x.count * k);
    to.counts = (int32_t*)(to.scales + x.count * units);
    to.sums = (float*)(to.counts + x.count * units);
    const int block = (int)(x.count < 16 ? x.count : 16);
    parallel((int)((x.count + block - 1) / block), [&](int chunk) {
        for (int64_t r = (int64_t)chunk * block; r < x.count && r < (int64_t)(chunk + 1) * block; r++)
            with.quantize(x.first + r * x.stride, k, to.codes + r * k, to.scales + r * units, to.counts + r * units,
                          to.sums + r * units);
    });
    return to;
}

// Sums over groups of W, from those over units of x.
const float* group_sums(const Activations& x, int64_t rows, const Layout& layout, float* to) {
    const int each = layout.group / UNIT;
    if (each == 1) return x.sums;
    const int64_t groups = layout.groups() * rows;
    for (int64_t g = 0; g < groups; g++) {
        float sum = x.sums[g * each];
        for (int u = 1; u < each; u++) sum += x.sums[g * each + u];
        to[g] = sum;
    }
    return to;
}

struct Task {
    Product product;
    int rows;
    int64_t panels;  // of a chunk
    int chunks;
};

Task task(const Product& product, int rows) {
    const Layout& l = product.layout;
    const int64_t height = rows < ROW_BLOCK ? rows : ROW_BLOCK;
    int64_t panels = CHUNK / (height * PANEL * l.k);
    panels = panels < 1 ? 1 : panels;
    const int64_t chunks = (l.panels() + panels - 1) / panels * ((rows + ROW_BLOCK - 1) / ROW_BLOCK);
    return {product, rows, panels, (int)chunks};
}

void work(const Kernels& with, const Task& task, int chunk) {
    const int blocks = (task.rows + ROW_BLOCK - 1) / ROW_BLOCK;
    const int64_t first = (int64_t)(chunk / blocks) * task.panels, all = task.product.layout.panels();
    const int row = chunk % blocks * ROW_BLOCK, end = row + ROW_BLOCK < task.rows ? row + ROW_BLOCK : task.rows;
    with.product(task.product, first, first + task.panels < all ? first + task.panels : all, row, end);
}

void multiply(const Rows& x, const std::vector<Matrix>& matrices, const std::vector<float*>& y) {
    const Kernels& with = kernels();
    const int k = matrices[0].layout.k;
    const int64_t units = k / UNIT, quantized_bytes = x.count * (k + 12 * units), sums = 4 * x.count * units;
    char* memory = scratch.take(quantized_bytes + (int64_t)matrices.size() * sums);
    const Activations activations = quantized(with, x, k, memory);
    std::vector<Task> tasks;
    int chunks = 0;
    for (size_t i = 0; i < matrices.size(); i++) {
        const Layout& layout = matrices[i].layout;
        float* to = (float*)(memory + quantized_bytes + (int64_t)i * sums);
        tasks.push_back(task({layout, matrices[i].bytes(), activations, group_sums(activations, x.count, layout, to),
                              y[i], layout.n}, (int)x.count));
        chunks += tasks.back().chunks;
    }
    parallel(chunks, [&](int chunk) {
        size_t i = 0;
        while (chunk >= tasks[i].chunks) chunk -= tasks[i++].chunks;
        work(with, tasks[i], chunk);
    });
}

class Products : public mx::Primitive {
   public:
    Products(mx::Stream stream, std::vector<Matrix> matrices) : Primitive(stream), matrices_(std::move(matrices)) {}

    void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
        std::vector<mx::array> to;
        for (auto& output : outputs) {
            output.set_data(mx::allocator::malloc(output.nbytes()));
            to.push_back(mx::array::unsafe_weak_copy(output));
        }
        auto& encoder = mx::cpu::get_command_encoder(stream());
        encoder.set_input_array(inputs[0]);
        for (auto& output : outputs) encoder.set_output_array(output);
        encoder.dispatch([x = mx::array::unsafe_weak_copy(inputs[0]), to = std::move(to), matrices = matrices_]() mutable {
            const int k = matrices[0].layout.k;
            const int64_t rows = (int64_t)x.size() / k;
            std::vector<float*> y;
            for (auto& each : to) y.push_back(each.data<float>());
            if (rows) multiply({x.data<float>(), rows, k}, matrices, y);
        });
    }
    void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
        throw std::runtime_error("packed matrices are multiplied on the CPU only");
    }
    const char* name() const override { return "SquishProducts"; }

   private:
    std::vector<Matrix> matrices_;
};

}  // namespace

const Kernels& kernels() {
    static const Kernels& chosen = [] () -> const Kernels& {
        const char* wanted = std::getenv("SQUISH_CPU_KERNEL");
        for (const Kernels* const* each = runnable(); wanted && *wanted && *each; each++)
            if (!std::strcmp((*each)->name, wanted)) return **each;
        return **runnable();
    }();
    return chosen;
}

std::vector<mx::array> products(const mx::array& x, const std::vector<Matrix>& matrices) {
    if (matrices.empty()) return {};
    const int k = matrices[0].layout.k;
    if (x.ndim() < 1 || x.dtype() != mx::float32 || x.shape(-1) != k) throw std::invalid_argument("x must be (..., k) float32");
    std::vector<mx::Shape> shapes;
    for (const Matrix& matrix : matrices) {
        if (matrix.layout.k != k) throw std::invalid_argument("matrices must have the same columns");
        shapes.push_back(x.shape());
        shapes.back().back() = matrix.layout.n;
    }
    const mx::Stream stream = mx::default_stream(mx::Device::cpu);
    return mx::array::make_arrays(std::move(shapes), std::vector<mx::Dtype>(matrices.size(), mx::float32),
                                  std::make_shared<Products>(stream, matrices), {mx::contiguous(x, false, stream)});
}

}  // namespace squish

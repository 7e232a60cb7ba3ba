// Products of activations with packed matrices, as a primitive of MLX's.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

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

// Products of a chunk: some 10 µs, so that taking it costs a thousandth.
constexpr int64_t CHUNK = 1 << 18;
// Panels of a chunk at least, because the next is read while one is multiplied; where there are many, and few rows.
constexpr int64_t TOGETHER = 4, MANY_PANELS = 128, FEW_ROWS = 64;
// Rows of x that stay in a core's cache while panels pass by.
constexpr int ROW_BLOCK = 128, EXACT_ROW_BLOCK = 64;

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

constexpr int64_t UNIT_BYTES = 4 + 2 * 4 + PEAKS * sizeof(Peak);  // of `Activations`, without codes

// Activations from a row on.
Activations from_row(const Activations& x, int64_t row, int k) {
    const int64_t units = k / UNIT;
    return {x.codes + row * k, x.scales + row * units, x.counts + row * 2 * units, x.peaks, x.ends + row, (int32_t)row};
}

Activations quantized(const Kernels& with, const Rows& x, int k, char* memory) {
    const int64_t units = k / UNIT, all = x.count * units, block = x.count < 16 ? x.count : 16, room = units * PEAKS;
    int64_t* ends = (int64_t*)(memory + x.count * k);
    Peak* peaks = (Peak*)(ends + x.count + 1);
    float* scales = (float*)(peaks + x.count * room);
    const Activations to = {(int8_t*)memory, scales, (int32_t*)(scales + all), peaks, ends, 0};
    parallel((int)((x.count + block - 1) / block), [&](int chunk) {
        for (int64_t r = chunk * block; r < x.count && r < (chunk + 1) * block; r++)
            ends[r + 1] = with.quantize(x.first + r * x.stride, k, to.codes + r * k, scales + r * units,
                                        to.counts + r * 2 * units, peaks + r * room);
    });
    ends[0] = 0;
    for (int64_t r = 0; r < x.count; r++) {  // to where the last row's end
        Peak *from = peaks + r * room, *next = peaks + ends[r];
        for (const Peak* end = from + ends[r + 1]; from < end; from++, next++) *next = *from, next->row = (int32_t)r;
        ends[r + 1] += ends[r];
    }
    return to;
}

// What the codes of some columns stand for, added up: `Product::sums`.
void group_sums(const Activations& x, int64_t rows, const Layout& layout, float* to) {
    const int64_t units = layout.k / UNIT, columns = layout.sum_columns(), each = columns / UNIT, sums = layout.sums();
    for (int64_t h = 0; each == 0 && h < rows * sums; h++) to[h] = x.scales[h / 2] * (float)x.counts[h];  // half a unit
    for (int64_t u = 0, i = 0; each && u < rows * units; i++) {
        float sum = 0;
        for (const int64_t end = u + each; u < end; u++) sum += x.scales[u] * (float)(x.counts[2 * u] + x.counts[2 * u + 1]);
        to[i] = sum;
    }
    for (const Peak *peak = x.peaks + x.ends[0], *end = x.peaks + x.ends[rows]; peak < end; peak++)
        to[(peak->row - x.row) * sums + 4 * peak->step / columns] += peak->scale * (float)peak->count;
}

// `Product::starts`.
void group_starts(const Activations& x, int64_t rows, const Layout& layout, int32_t* to) {
    const int32_t center = 1 << (layout.bits - 1);
    for (int64_t h = 0; h < rows * layout.sums(); h++) to[h] = -center * x.counts[h];
}

struct Task {
    Product product;
    bool exact;
    int64_t rows, block, panels;  // block: rows, and panels, of a chunk
    int chunks;
};

Task task(const Product& product, bool exact, int64_t rows) {
    const Layout& l = product.layout;
    const int64_t most = exact ? EXACT_ROW_BLOCK : ROW_BLOCK, block = rows < most ? rows : most;
    int64_t panels = CHUNK / (block * PANEL * l.k);
    const int64_t least = block < FEW_ROWS && l.panels() >= MANY_PANELS ? TOGETHER : 1;
    panels = panels < least ? least : panels;
    const int64_t chunks = (l.panels() + panels - 1) / panels * ((rows + block - 1) / block);
    return {product, exact, rows, block, panels, (int)chunks};
}

void work(const Kernels& with, const Task& t, int chunk) {
    const int64_t blocks = (t.rows + t.block - 1) / t.block, all = t.product.layout.panels();
    const int64_t first = chunk / blocks * t.panels, last = first + t.panels < all ? first + t.panels : all;
    const int64_t row = chunk % blocks * t.block, end = row + t.block < t.rows ? row + t.block : t.rows;
    (t.exact ? with.exact : with.product)(t.product, first, last, (int)row, (int)end);
}

// x as whole units: columns past the last are zeros.
Rows padded(const Rows& x, int k, float* to) {
    const int64_t width = (k + UNIT - 1) / UNIT * UNIT;
    for (int64_t r = 0; r < x.count; r++) {
        std::memcpy(to + r * width, x.first + r * x.stride, k * sizeof(float));
        std::memset(to + r * width + k, 0, (width - k) * sizeof(float));
    }
    return {to, x.count, width};
}

// Rows of x and the matrix that they are multiplied by. y: (rows, n).
struct Segment {
    const Matrix* matrix;
    int64_t first, rows;
    float* y;
};

// What a product needs of x, in `memory`: whole units, and 8-bit activations where they are wanted.
struct Input {
    Rows rows;
    Activations activations;
    bool narrow;
};

int64_t input_bytes(int64_t rows, int k, bool narrow) {
    const int64_t units = (k + UNIT - 1) / UNIT;
    return (k % UNIT ? rows * units * UNIT * 4 : 0) + (narrow ? rows * (k + UNIT_BYTES * units + 8) + 8 : 0);
}

Input prepared(const Kernels& with, const Rows& x, int k, bool narrow, char* memory) {
    if (k % UNIT) return {padded(x, k, (float*)memory), {}, false};
    return {x, narrow ? quantized(with, x, k, memory) : Activations{}, narrow};
}

Product product_of(const Segment& s, const Input& x, float* sums) {
    const Layout& l = s.matrix->layout;
    const Activations part = x.narrow ? from_row(x.activations, s.first, l.k) : Activations{};
    const float* added = s.matrix->added ? s.matrix->added->data<float>() : nullptr;
    return {l, s.matrix->bytes(), x.rows.first + s.first * x.rows.stride, x.rows.stride, part,
            l.kind == SUPER_CENTERED ? nullptr : sums, l.kind == SUPER_CENTERED ? (int32_t*)sums : nullptr, s.y, l.n, added};
}

// All segments in one go of the threads. memory: as much as `multiply_bytes` says.
int64_t multiply_bytes(int64_t rows, int k, const std::vector<Segment>& segments, bool narrow) {
    int64_t bytes = input_bytes(rows, k, narrow);
    for (const Segment& s : segments) bytes += narrow ? 4 * s.rows * s.matrix->layout.sums() : 0;
    return bytes;
}

void multiply(const Rows& x, int k, const std::vector<Segment>& segments, bool narrow, char* memory) {
    const Kernels& with = kernels();
    const Input input = prepared(with, x, k, narrow, memory);
    float* next = (float*)(memory + input_bytes(x.count, k, narrow));
    std::vector<Task> tasks;
    int chunks = 0;
    for (const Segment& s : segments) {
        const Layout& l = s.matrix->layout;
        const bool whole = input.narrow && l.whole();
        Product product = product_of(s, input, next);
        if (whole) {
            if (l.kind == SUPER_CENTERED) group_starts(product.x, s.rows, l, (int32_t*)next);
            else group_sums(product.x, s.rows, l, next);
            next += s.rows * l.sums();
        }
        tasks.push_back(task(product, !whole, s.rows));
        chunks += tasks.back().chunks;
    }
    parallel(chunks, [&](int chunk) {
        size_t i = 0;
        while (chunk >= tasks[i].chunks) chunk -= tasks[i++].chunks;
        work(with, tasks[i], chunk);
    });
}

bool wants_narrow(const std::vector<Segment>& segments, bool exact) {
    bool whole = false;
    for (const Segment& segment : segments) whole |= segment.matrix->layout.whole();
    return whole && !exact;
}

class Products : public mx::Primitive {
   public:
    Products(mx::Stream stream, std::vector<Matrix> matrices, bool exact)
        : Primitive(stream), matrices_(std::move(matrices)), exact_(exact) {}

    void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
        std::vector<mx::array> to;
        auto& encoder = mx::cpu::get_command_encoder(stream());
        encoder.set_input_array(inputs[0]);
        for (auto& output : outputs) {
            output.set_data(mx::allocator::malloc(output.nbytes()));
            encoder.set_output_array(output);
            to.push_back(mx::array::unsafe_weak_copy(output));
        }
        auto run = [x = mx::array::unsafe_weak_copy(inputs[0]), to = std::move(to), matrices = matrices_,
                    exact = exact_]() mutable {
            const int k = matrices[0].layout.k;
            const int64_t rows = (int64_t)x.size() / k;
            if (!rows) return;
            std::vector<const Matrix*> each;
            std::vector<float*> y;
            for (size_t i = 0; i < to.size(); i++) each.push_back(&matrices[i]), y.push_back(to[i].data<float>());
            multiply(x.data<float>(), rows, each, y, exact);
        };
        encoder.dispatch(std::move(run));
    }
    void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
        throw std::runtime_error("packed matrices are multiplied on the CPU only");
    }
    const char* name() const override { return "SquishProducts"; }

   private:
    std::vector<Matrix> matrices_;
    bool exact_;
};

const Kernels* named(const char* name) {
    for (const Kernels* const* each = runnable(); *each; each++)
        if (!std::strcmp((*each)->name, name)) return *each;
    return nullptr;
}

std::atomic<const Kernels*>& in_use() {
    static std::atomic<const Kernels*> chosen = [] {
        const char* wanted = std::getenv("SQUISH_CPU_KERNEL");
        const Kernels* found = wanted ? named(wanted) : nullptr;
        return found ? found : *runnable();
    }();
    return chosen;
}

// Which rows of the output an expert computes: they are put side by side, multiplied, and put back.
struct Sorted {
    std::vector<int64_t> order;  // rows of the output, by expert
    std::vector<int64_t> starts;
};

Sorted by_expert(const int32_t* experts, int64_t count, int64_t most) {
    Sorted sorted = {std::vector<int64_t>(count), std::vector<int64_t>(most + 1)};
    const auto of = [&](int64_t i) { return experts[i] < 0 ? 0 : experts[i] >= most ? most - 1 : (int64_t)experts[i]; };
    for (int64_t i = 0; i < count; i++) sorted.starts[of(i) + 1]++;
    for (int64_t e = 0; e < most; e++) sorted.starts[e + 1] += sorted.starts[e];
    std::vector<int64_t> next = sorted.starts;
    for (int64_t i = 0; i < count; i++) sorted.order[next[of(i)]++] = i;
    return sorted;
}

void multiply_by_experts(const float* x, int64_t rows, const int32_t* ids, int64_t count, const std::vector<Matrix>& experts,
                         bool exact, float* y) {
    const int k = experts[0].layout.k, n = experts[0].layout.n;
    const Sorted sorted = by_expert(ids, count, (int64_t)experts.size());
    std::vector<Segment> segments;
    for (size_t e = 0; e < experts.size(); e++)
        if (const int64_t first = sorted.starts[e], last = sorted.starts[e + 1]; first < last)
            segments.push_back({&experts[e], first, last - first, nullptr});
    const bool narrow = wants_narrow(segments, exact);
    const int64_t gathered = (count * k * 4 + 63) / 64 * 64, results = (count * n * 4 + 63) / 64 * 64;
    char* memory = scratch.take(gathered + results + multiply_bytes(count, k, segments, narrow));
    float *side_by_side = (float*)memory, *products = (float*)(memory + gathered);
    for (int64_t i = 0; i < count; i++)
        std::memcpy(side_by_side + i * k, x + sorted.order[i] * rows / count * k, k * sizeof(float));
    for (Segment& s : segments) s.y = products + s.first * n;
    multiply({side_by_side, count, k}, k, segments, narrow, memory + gathered + results);
    for (int64_t i = 0; i < count; i++) std::memcpy(y + sorted.order[i] * n, products + i * n, n * sizeof(float));
}

class Experts : public mx::UnaryPrimitive {
   public:
    Experts(mx::Stream stream, std::vector<Matrix> experts, bool exact)
        : UnaryPrimitive(stream), experts_(std::move(experts)), exact_(exact) {}

    void eval_cpu(const std::vector<mx::array>& inputs, mx::array& output) override {
        output.set_data(mx::allocator::malloc(output.nbytes()));
        auto& encoder = mx::cpu::get_command_encoder(stream());
        for (auto& input : inputs) encoder.set_input_array(input);
        encoder.set_output_array(output);
        encoder.dispatch([x = mx::array::unsafe_weak_copy(inputs[0]), ids = mx::array::unsafe_weak_copy(inputs[1]),
                          to = mx::array::unsafe_weak_copy(output), experts = experts_, exact = exact_]() mutable {
            const int64_t rows = (int64_t)x.size() / experts[0].layout.k;
            if (ids.size())
                multiply_by_experts(x.data<float>(), rows, ids.data<int32_t>(), (int64_t)ids.size(), experts, exact,
                                    to.data<float>());
        });
    }
    void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
        throw std::runtime_error("packed matrices are multiplied on the CPU only");
    }
    const char* name() const override { return "SquishExperts"; }

   private:
    std::vector<Matrix> experts_;
    bool exact_;
};

}  // namespace

void multiply(const float* x, int64_t rows, const std::vector<const Matrix*>& matrices, const std::vector<float*>& y,
              bool exact) {
    const int k = matrices[0]->layout.k;
    std::vector<Segment> segments;
    for (size_t i = 0; i < matrices.size(); i++) segments.push_back({matrices[i], 0, rows, y[i]});
    const bool narrow = wants_narrow(segments, exact);
    multiply({x, rows, k}, k, segments, narrow, scratch.take(multiply_bytes(rows, k, segments, narrow)));
}

const Kernels& kernels() { return *in_use().load(std::memory_order_relaxed); }

void use_kernels(const std::string& name) {
    const Kernels* found = named(name.c_str());
    if (!found) throw std::invalid_argument("this processor cannot run kernels of the name " + name);
    in_use().store(found, std::memory_order_relaxed);
}

std::vector<mx::array> products(const mx::array& x, const std::vector<Matrix>& matrices, bool exact) {
    if (matrices.empty()) return {};
    const int k = matrices[0].layout.k;
    if (x.ndim() < 1 || x.dtype() != mx::float32 || x.shape(-1) != k)
        throw std::invalid_argument("x must be (..., columns) float32");
    std::vector<mx::Shape> shapes;
    for (const Matrix& matrix : matrices) {
        if (matrix.layout.k != k) throw std::invalid_argument("matrices must have the same columns");
        shapes.push_back(x.shape());
        shapes.back().back() = matrix.layout.n;
    }
    const mx::Stream stream = mx::default_stream(mx::Device::cpu);
    return mx::array::make_arrays(std::move(shapes), std::vector<mx::Dtype>(matrices.size(), mx::float32),
                                  std::make_shared<Products>(stream, matrices, exact), {mx::contiguous(x, false, stream)});
}

mx::array experts(const mx::array& x, const mx::array& ids, const std::vector<Matrix>& matrices, bool exact) {
    if (matrices.empty()) throw std::invalid_argument("there must be experts");
    const Layout& first = matrices[0].layout;
    for (const Matrix& matrix : matrices)
        if (matrix.layout.k != first.k || matrix.layout.n != first.n) throw std::invalid_argument("experts must be alike");
    if (x.dtype() != mx::float32 || x.ndim() < 2 || x.shape(-1) != first.k || x.shape(-2) != 1)
        throw std::invalid_argument("x must be (..., 1, columns) float32");
    // Each row of x is for the same number of experts, side by side.
    const int64_t rows = (int64_t)x.size() / first.k, count = (int64_t)ids.size();
    if (rows == 0 || count % rows) throw std::invalid_argument("the choice of experts does not fit x");
    const mx::Stream stream = mx::default_stream(mx::Device::cpu);
    mx::Shape shape = ids.shape();
    shape.push_back(1);
    shape.push_back(first.n);
    return mx::array(std::move(shape), mx::float32, std::make_shared<Experts>(stream, matrices, exact),
                     {mx::contiguous(x, false, stream), mx::contiguous(mx::astype(ids, mx::int32, stream), false, stream)});
}

}  // namespace squish

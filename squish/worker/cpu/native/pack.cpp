// From MLX's layout of weights to the kernels'.
#include <sys/mman.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "matrix.h"
#include "numbers.h"
#include "pool.h"

namespace mx = mlx::core;

namespace squish {
namespace {

constexpr int64_t HUGE_PAGE = 2 << 20;

mx::array buffer(const Layout& layout) {
    // Whole pages of 2 MB: a product reads all of it in order, and small pages cost a tenth.
    const int64_t bytes = layout.bytes(), rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    const bool large = rounded < bytes + bytes / 16;
    void* memory = std::aligned_alloc(large ? HUGE_PAGE : 64, large ? rounded : (bytes + 63) / 64 * 64);
    if (!memory) throw std::bad_alloc();
    if (large) madvise(memory, rounded, MADV_HUGEPAGE);
    const mx::Shape shape = {(mx::ShapeElem)layout.panels(), (mx::ShapeElem)layout.panel_bytes()};
    return mx::array(memory, shape, mx::uint8, [](void* p) { std::free(p); });
}

// Codes of `bits` bits, which follow each other from the lowest bit on.
inline void unpack(const uint8_t* from, int count, int bits, uint8_t* codes) {
    uint64_t window = 0;
    int held = 0;
    for (int i = 0; i < count; i++) {
        for (; held < bits; held += 8) window |= (uint64_t)*from++ << held;
        codes[i] = window & ((1 << bits) - 1);
        window >>= bits, held -= bits;
    }
}

// One row's fields of `bits` bits, from bit `shift` of its codes on, into its bytes of a plane.
inline void put(const uint8_t* codes, int count, int shift, int bits, uint8_t* plane) {
    const int fields = 8 / bits;
    for (int step = 0; step < count / 4; step += fields)
        for (int i = 0; i < 4; i++) {
            int byte = 0;
            for (int f = 0; f < fields; f++)
                byte |= (codes[4 * (step + f) + i] >> shift & ((1 << bits) - 1)) << (f * bits);
            plane[step / fields * PANEL * 4 + i] = (uint8_t)byte;
        }
}

// The same for whole codes of 4 bits: nibbles 0–3 and 4–7 of a word become the halves of four bytes.
inline void put_nibbles(const uint8_t* from, int count, uint8_t* plane) {
    for (int word = 0; word < count / 8; word++) {
        uint32_t packed;
        std::memcpy(&packed, from + 4 * word, 4);
        uint32_t low = packed & 0xFFFF, high = packed >> 16;
        low = (low | low << 8) & 0x00FF00FF, high = (high | high << 8) & 0x00FF00FF;
        low = (low | low << 4) & 0x0F0F0F0F, high = (high | high << 4) & 0x0F0F0F0F;
        packed = low | high << 4;
        std::memcpy(plane + word * PANEL * 4, &packed, 4);
    }
}

// The same for codes of 8 bits, which are bytes already.
inline void put_bytes(const uint8_t* from, int count, uint8_t* plane) {
    for (int word = 0; word < count / 4; word++) std::memcpy(plane + word * PANEL * 4, from + 4 * word, 4);
}

void put_piece(const uint8_t* from, int count, int bits, uint8_t* piece) {
    if (bits == 4) return put_nibbles(from, count, piece);
    if (bits == 8) return put_bytes(from, count, piece);
    uint8_t codes[UNIT];
    unpack(from, count, bits, codes);
    const int low = bits >= 4 ? 4 : 2;
    put(codes, count, 0, low, piece);
    if (bits > low) put(codes, count, low, bits - low, piece + PANEL * count * low / 8);
}

void check(bool fits, const char* message) {
    if (!fits) throw std::invalid_argument(message);
}

Number number_of(mx::Dtype dtype) {
    if (dtype == mx::float32) return FLOAT32;
    if (dtype == mx::float16) return FLOAT16;
    check(dtype == mx::bfloat16, "numbers must be float32, float16 or bfloat16");
    return BFLOAT16;
}

Layout layout_of(const mx::array& weight, const mx::array& scales, bool biased, int bits, int group, const std::string& mode) {
    check(weight.ndim() == 2 && scales.ndim() == 2 && weight.dtype() == mx::uint32, "weights must be a matrix of uint32");
    check((bits >= 2 && bits <= 6) || bits == 8, "bits must be 2, 3, 4, 5, 6 or 8");
    const int64_t k = (int64_t)weight.shape(1) * 32 / bits;
    check(k > 0 && k < (1 << 24) && weight.shape(0) > 0, "weights must have rows and columns");
    Layout layout = {weight.shape(0), (int)k, AFFINE, bits, group, E8M0};
    if (mode == "affine") {
        check(biased && (group == 32 || group == 64 || group == 128), "groups must be of 32, 64 or 128, with biases");
        layout.number = number_of(scales.dtype());
    } else {
        check(!biased && scales.dtype() == mx::uint8, "scales must be uint8, without biases");
        layout.kind = mode == "mxfp8" ? FP8_KIND : FP4_KIND;
        if (mode == "nvfp4") layout.number = E4M3;
        check(mode == "mxfp4" || mode == "nvfp4" || mode == "mxfp8", "the mode must be affine, mxfp4, mxfp8 or nvfp4");
        check(bits == (mode == "mxfp8" ? 8 : 4) && group == (mode == "nvfp4" ? 16 : 32), "bits or group do not fit the mode");
    }
    check(k % group == 0 && k % UNIT == 0, "columns must be whole groups");
    check(scales.shape(0) == layout.n && scales.shape(1) == k / group, "scales do not fit the weights");
    return layout;
}

// Whether biases are what CENTERED says. Numbers that are not finite are never.
bool centered(const Layout& layout, const uint8_t* scales, const uint8_t* biases) {
    if (layout.kind != AFFINE) return false;
    std::atomic<bool> all{true};
    parallel(layout.n, [&](int row) {
        if (!all.load(std::memory_order_relaxed)) return;
        for (int64_t i = row * layout.groups(); i < (row + 1) * layout.groups(); i++) {
            const float expected = number_at(layout.number, scales, i) * layout.center();
            if (!(number_at(layout.number, biases, i) == expected) || std::isinf(expected)) return all.store(false);
        }
    });
    return all;
}

std::optional<mx::array> checked(const std::optional<mx::array>& added, int n) {
    if (!added) return added;
    check(added->ndim() == 1 && added->shape(0) == n, "what is added does not fit the weights");
    mx::array ready = mx::contiguous(mx::astype(*added, mx::float32));
    mx::eval(ready);
    return ready;
}

// Calls `fill(row, at)` for each row of each panel; `at` is the row's place in a panel of zeros.
template <class Fill>
Matrix packed(const Layout& layout, const std::optional<mx::array>& added, Fill&& fill) {
    check(layout.panel_bytes() < INT32_MAX, "the matrix is too wide");
    mx::array data = buffer(layout);
    uint8_t* to = data.data<uint8_t>();
    parallel((int)layout.panels(), [&](int panel) {
        uint8_t* at = to + panel * layout.panel_bytes();
        std::memset(at, 0, layout.panel_bytes());
        for (int64_t r = 0; r < PANEL && panel * (int64_t)PANEL + r < layout.n; r++)
            fill(panel * (int64_t)PANEL + r, at, (int)r);
    });
    return {layout, data, added};
}

}  // namespace

Matrix pack(const mx::array& weight, const mx::array& scales, const std::optional<mx::array>& biases, int bits, int group,
            const std::string& mode, const std::optional<mx::array>& added) {
    Layout layout = layout_of(weight, scales, biases.has_value(), bits, group, mode);
    check(!biases || (biases->shape() == scales.shape() && biases->dtype() == scales.dtype()), "biases must be as scales");
    mx::array w = mx::contiguous(weight), s = mx::contiguous(scales), b = biases ? mx::contiguous(*biases) : s;
    mx::eval(w, s, b);
    const uint8_t *codes = w.data<uint8_t>(), *numbers[2] = {s.data<uint8_t>(), b.data<uint8_t>()};
    if (biases && centered(layout, numbers[0], numbers[1])) layout.kind = CENTERED;
    const int64_t width = layout.number_bytes(), groups = layout.groups(), piece = layout.piece();
    return packed(layout, checked(added, layout.n), [&](int64_t row, uint8_t* at, int lane) {
        const uint8_t* from = codes + row * layout.k * bits / 8;
        for (int64_t g = 0; g < groups; g++) {
            for (int kind = 0; kind < (layout.kind == AFFINE ? 2 : 1); kind++, at += PANEL * width)
                std::memcpy(at + lane * width, numbers[kind] + (row * groups + g) * width, width);
            for (int column = 0; column < group; column += piece, from += piece * bits / 8, at += layout.piece_bytes())
                put_piece(from, piece, bits, at + lane * 4);
        }
    });
}

namespace {

Layout super_layout(const mx::array& weight, const SuperScales& s, int bits) {
    check(weight.ndim() == 2 && weight.dtype() == mx::uint32, "weights must be a matrix of uint32");
    check(bits >= 2 && bits <= 6, "bits must be 2, 3, 4, 5 or 6");
    const int64_t n = weight.shape(0), k = (int64_t)weight.shape(1) * 32 / bits;
    check(n > 0 && k > 0 && k < (1 << 24) && k % SUPER == 0 && k * bits == weight.shape(1) * 32, "columns must be whole groups of 256");
    const Kind kind = bits == 4 || bits == 5 ? SUPER_AFFINE : bits == 2 ? SUPER_HALVES : SUPER_CENTERED;
    const auto fits = [&](const std::optional<mx::array>& each, mx::Dtype dtype, int64_t columns) {
        return each && each->ndim() == 2 && each->dtype() == dtype && each->shape(0) == n && each->shape(1) == columns;
    };
    const bool small = kind == SUPER_AFFINE ? fits(s.minima, mx::uint8, k / UNIT) && fits(s.scales, mx::uint8, k / UNIT)
                                            : !s.minima && fits(s.scales, mx::uint8, k / HALF);
    const bool large = fits(s.of_scales, mx::float16, k / SUPER) &&
                       (kind == SUPER_CENTERED ? !s.of_minima : fits(s.of_minima, mx::float16, k / SUPER));
    check(small && large, "scales do not fit the weights");
    return {(int)n, (int)k, kind, bits, SUPER, FLOAT16};
}

}  // namespace

Matrix pack_super(const mx::array& weight, const SuperScales& s, int bits, const std::optional<mx::array>& added) {
    const Layout layout = super_layout(weight, s, bits);
    const auto ready = [&](const std::optional<mx::array>& each) {
        mx::array made = mx::contiguous(each ? *each : s.scales);
        mx::eval(made);
        return made;
    };
    const mx::array w = ready(weight), scales = ready(s.scales), minima = ready(s.minima);
    const mx::array large[] = {ready(s.of_scales), ready(s.of_minima)};
    const int parts = layout.kind == SUPER_AFFINE ? 1 : 2;
    // Bytes of a row for each group: of one array where there is one for each half, else of two.
    return packed(layout, checked(added, layout.n), [&](int64_t row, uint8_t* at, int lane) {
        const uint8_t* from = w.data<uint8_t>() + row * layout.k * bits / 8;
        const uint8_t* small = scales.data<uint8_t>() + row * parts * (layout.k / UNIT);
        const uint8_t* second = parts == 2 ? nullptr : minima.data<uint8_t>() + row * (layout.k / UNIT);
        for (int64_t g = 0; g < layout.groups(); g++) {
            for (int i = 0; i < (layout.biased() ? 2 : 1); i++, at += PANEL * 2)
                std::memcpy(at + lane * 2, large[i].data<uint8_t>() + (row * layout.groups() + g) * 2, 2);
            for (int u = 0; u < SUPER / UNIT; u++, from += UNIT * bits / 8, at += layout.piece_bytes()) {
                const uint8_t turned = layout.kind == SUPER_CENTERED ? 128 : 0;  // signed bytes, as numbers from 0 on
                at[lane] = *small++ ^ turned;
                at[PANEL + lane] = second ? *second++ : *small++ ^ turned;
                put_piece(from, UNIT, bits, at + 2 * PANEL + lane * 4);
            }
        }
    });
}

Matrix pack_dense(const mx::array& weight, const std::optional<mx::array>& added) {
    check(weight.ndim() == 2 && weight.shape(0) > 0 && weight.shape(1) > 0, "weights must be a matrix");
    const Number number = number_of(weight.dtype());
    const Layout layout = {weight.shape(0), weight.shape(1), DENSE, number == FLOAT32 ? 32 : 16, UNIT, number};
    mx::array w = mx::contiguous(weight);
    mx::eval(w);
    const uint8_t* numbers = w.data<uint8_t>();
    return packed(layout, checked(added, layout.n), [&, k = layout.k](int64_t row, uint8_t* at, int lane) {
        if (number == FLOAT32)
            for (int c = 0; c < k; c++) std::memcpy(at + (c * PANEL + lane) * 4, numbers + (row * k + c) * 4, 4);
        else
            for (int c = 0; c < k; c++) std::memcpy(at + (c * PANEL + lane) * 2, numbers + (row * k + c) * 2, 2);
    });
}

}  // namespace squish

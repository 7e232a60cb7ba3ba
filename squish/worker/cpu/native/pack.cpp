// From MLX's layout of quantized weights to the kernels'.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "matrix.h"
#include "pool.h"

namespace mx = mlx::core;

namespace squish {
namespace {

constexpr int64_t HUGE_PAGE = 2 << 20;

mx::array buffer(const Layout& layout) {
    const int64_t bytes = layout.bytes();
    // Whole pages of 2 MB: a product reads all of it in order, and small pages cost a tenth.
    const int64_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    const bool large = rounded < bytes + bytes / 16;
    void* memory = std::aligned_alloc(large ? HUGE_PAGE : 64, large ? rounded : (bytes + 63) / 64 * 64);
    if (!memory) throw std::bad_alloc();
    if (large) madvise(memory, rounded, MADV_HUGEPAGE);
    return mx::array(memory, {(mx::ShapeElem)layout.panels(), (mx::ShapeElem)layout.panel_bytes()}, mx::uint8, [](void* p) { std::free(p); });
}

// 32 codes of `bits` bits, which follow each other from the lowest bit on.
inline void unpack(const uint8_t* from, int bits, uint8_t* codes) {
    uint64_t window = 0;
    int held = 0;
    for (int i = 0; i < UNIT; i++) {
        for (; held < bits; held += 8) window |= (uint64_t)*from++ << held;
        codes[i] = window & ((1 << bits) - 1);
        window >>= bits, held -= bits;
    }
}

// One row's fields of `bits` bits, from bit `shift` of its codes on, into its bytes of a plane.
inline void put(const uint8_t* codes, int shift, int bits, uint8_t* plane) {
    const int fields = 8 / bits;
    for (int step = 0; step < STEPS; step += fields)
        for (int i = 0; i < 4; i++) {
            int byte = 0;
            for (int f = 0; f < fields; f++)
                byte |= (codes[4 * (step + f) + i] >> shift & ((1 << bits) - 1)) << (f * bits);
            plane[step / fields * PANEL * 4 + i] = (uint8_t)byte;
        }
}

// The same for whole codes of 4 bits: nibbles 0–3 and 4–7 of a word become the halves of four bytes.
inline void put_nibbles(const uint8_t* from, uint8_t* plane) {
    for (int word = 0; word < 4; word++) {
        uint32_t packed;
        std::memcpy(&packed, from + 4 * word, 4);
        uint32_t low = packed & 0xFFFF, high = packed >> 16;
        low = (low | low << 8) & 0x00FF00FF, high = (high | high << 8) & 0x00FF00FF;
        low = (low | low << 4) & 0x0F0F0F0F, high = (high | high << 4) & 0x0F0F0F0F;
        packed = low | high << 4;
        std::memcpy(plane + word * PANEL * 4, &packed, 4);
    }
}

void pack_unit(const uint8_t* from, int bits, uint8_t* unit) {
    if (bits == 4) return put_nibbles(from, unit);
    uint8_t codes[UNIT];
    unpack(from, bits, codes);
    const int low = bits >= 8 ? 8 : bits >= 4 ? 4 : 2;
    put(codes, 0, low, unit);
    if (bits > low) put(codes, low, bits - low, unit + PANEL * UNIT * low / 8);
}

void check(bool fits, const char* message) {
    if (!fits) throw std::invalid_argument(message);
}

Scale scale_of(const mx::array& scales) {
    if (scales.dtype() == mx::float32) return FLOAT32;
    if (scales.dtype() == mx::float16) return FLOAT16;
    check(scales.dtype() == mx::bfloat16, "scales must be float32, float16 or bfloat16");
    return BFLOAT16;
}

}  // namespace

Matrix pack(const mx::array& weight, const mx::array& scales, const mx::array& biases, int bits, int group) {
    check(weight.ndim() == 2 && scales.ndim() == 2 && scales.shape() == biases.shape(), "weights must be matrices");
    check(weight.dtype() == mx::uint32 && scales.dtype() == biases.dtype(), "weights must be uint32, with scales and biases of one type");
    check((bits >= 2 && bits <= 6) || bits == 8, "bits must be 2, 3, 4, 5, 6 or 8");
    check(group == 32 || group == 64 || group == 128, "group must be 32, 64 or 128");
    const int n = weight.shape(0);
    const int64_t k = (int64_t)weight.shape(1) * 32 / bits;
    const Layout layout = {n, (int)k, bits, group, scale_of(scales)};
    check(n > 0 && k > 0 && k % group == 0 && k < (1 << 24), "columns must be whole groups");
    check(scales.shape(0) == n && scales.shape(1) == k / group, "scales do not fit the weights");
    check(layout.panel_bytes() < INT32_MAX, "the matrix is too wide");
    mx::array w = mx::contiguous(weight), s = mx::contiguous(scales), b = mx::contiguous(biases);
    mx::eval(w, s, b);
    mx::array data = buffer(layout);
    uint8_t* to = data.data<uint8_t>();
    const uint8_t *codes = (const uint8_t*)w.data<uint32_t>(), *numbers[2] = {s.data<uint8_t>(), b.data<uint8_t>()};
    const int64_t stride = k * bits / 8, width = layout.scale_bytes(), groups = layout.groups();
    parallel((int)layout.panels(), [&](int panel) {
        uint8_t* at = to + panel * layout.panel_bytes();
        std::memset(at, 0, layout.panel_bytes());
        const int rows = n - panel * PANEL < PANEL ? n - panel * PANEL : PANEL;
        for (int64_t g = 0; g < groups; g++) {
            for (const uint8_t* kind : numbers)
                for (int r = 0; r < PANEL; r++, at += width)
                    if (r < rows) std::memcpy(at, kind + (((int64_t)panel * PANEL + r) * groups + g) * width, width);
            for (int u = 0; u < group / UNIT; u++, at += layout.unit_bytes())
                for (int r = 0; r < rows; r++)
                    pack_unit(codes + ((int64_t)panel * PANEL + r) * stride + (g * group / UNIT + u) * UNIT * bits / 8,
                              bits, at + r * 4);
        }
    });
    return {layout, data};
}

}  // namespace squish

// The algorithms, written once. Each file of an instruction set defines `Isa` in an anonymous namespace and includes this:
//
//   LANES       rows of W in a vector; 4 · LANES bytes of codes
//   F, I, B     vectors of LANES floats, LANES int32, 4 · LANES bytes
//   zero load set1 fma mul add store half bfloat convert     on F
//   bytes shift_and join lookup                          on B
//   dots<CODE, ROWS>(codes, x, stride, counts, d)   d[r] = Σ codes · x[r] over a unit, exact

#include <cstring>

namespace squish {
namespace {

template <int BITS>
inline Isa::B field(const uint8_t* plane, int step) {
    constexpr int fields = 8 / BITS;
    return Isa::template shift_and<(1 << BITS) - 1>(Isa::bytes(plane + step / fields * PANEL * 4), step % fields * BITS);
}

template <int CODE>
inline void unpack(const uint8_t* unit, Isa::B* codes) {
    constexpr int low = CODE >= 8 ? 8 : CODE >= 4 ? 4 : 2, high = CODE - low;
    const uint8_t* second = unit + PANEL * UNIT * low / 8;
#pragma GCC unroll 8
    for (int step = 0; step < STEPS; step++) {
        codes[step] = field<low>(unit, step);
        if constexpr (high > 0) codes[step] = Isa::template join<low>(codes[step], field<high>(second, step));
    }
}

inline Isa::F scales(Scale kind, const uint8_t* at, int lane) {
    if (kind == FLOAT16) return Isa::half((const uint16_t*)at + lane);
    if (kind == BFLOAT16) return Isa::bfloat((const uint16_t*)at + lane);
    return Isa::load((const float*)at + lane);
}

// Rows row … row + ROWS of x, lanes lane … lane + BLOCKS · LANES of a panel.
template <int CODE, int ROWS, int BLOCKS>
inline void tile(const Product& p, const uint8_t* panel, int lane, int row, float (*out)[PANEL]) {
    using F = Isa::F;
    const Layout& l = p.layout;
    const int units = l.k / UNIT, each = l.group / UNIT;
    const int64_t width = l.scale_bytes(), groups = l.groups();
    const int8_t* x = p.x.codes + (int64_t)row * l.k;
    const float* dx = p.x.scales + (int64_t)row * units;
    const int32_t* counts = p.x.counts + (int64_t)row * units;
    const float* sums = p.sums + (int64_t)row * groups;
    F all[BLOCKS][ROWS];
    for (auto& block : all)
        for (F& one : block) one = Isa::zero();
    for (int64_t g = 0; g < groups; g++) {
        const uint8_t* unit = panel + 2 * PANEL * width;
        F part[BLOCKS][ROWS];
        for (auto& block : part)
            for (F& one : block) one = Isa::zero();
        for (int u = 0; u < each; u++) {
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; b++) {
                Isa::B codes[STEPS];
                Isa::I d[ROWS];
                unpack<CODE>(unit + (lane + b * Isa::LANES) * 4, codes);
                Isa::template dots<CODE, ROWS>(codes, x, l.k, counts, units, d);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; r++)
                    part[b][r] = Isa::fma(Isa::convert(d[r]), Isa::set1(dx[r * (int64_t)units]), part[b][r]);
            }
            unit += l.unit_bytes(), x += UNIT, dx++, counts++;
        }
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) {
            const F s = scales(l.scale, panel, lane + b * Isa::LANES);
            const F bias = scales(l.scale, panel + PANEL * width, lane + b * Isa::LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                all[b][r] = Isa::fma(s, part[b][r], all[b][r]);
                all[b][r] = Isa::fma(bias, Isa::set1(sums[r * groups + g]), all[b][r]);
            }
        }
        panel = unit;
    }
    for (int b = 0; b < BLOCKS; b++)
        for (int r = 0; r < ROWS; r++) Isa::store(out[r] + lane + b * Isa::LANES, all[b][r]);
}

// ROWS rows of x against whole panels.
template <int CODE, int ROWS>
void rows(const Product& p, int64_t panel, int row) {
    constexpr int blocks = ROWS == 1 ? PANEL / Isa::LANES : 1;
    float out[ROWS][PANEL];
    const uint8_t* weights = p.weights + panel * p.layout.panel_bytes();
    for (int lane = 0; lane < PANEL; lane += blocks * Isa::LANES) tile<CODE, ROWS, blocks>(p, weights, lane, row, out);
    const int64_t first = panel * PANEL, width = p.layout.n - first < PANEL ? p.layout.n - first : PANEL;
    for (int r = 0; r < ROWS; r++) std::memcpy(p.y + (row + r) * p.stride + first, out[r], width * sizeof(float));
}

template <int CODE>
void panels(const Product& p, int64_t first, int64_t last, int row, int end) {
    for (int64_t panel = first; panel < last; panel++) {
        int r = row;
        for (; r + Isa::ROWS <= end; r += Isa::ROWS) rows<CODE, Isa::ROWS>(p, panel, r);
        if constexpr (Isa::ROWS > 4)
            for (; r + 4 <= end; r += 4) rows<CODE, 4>(p, panel, r);
        for (; r + 2 <= end; r += 2) rows<CODE, 2>(p, panel, r);
        for (; r < end; r++) rows<CODE, 1>(p, panel, r);
    }
}

void product(const Product& p, int64_t first, int64_t last, int row, int end) {
    switch (p.layout.bits) {
        case 2: return panels<2>(p, first, last, row, end);
        case 3: return panels<3>(p, first, last, row, end);
        case 4: return panels<4>(p, first, last, row, end);
        case 5: return panels<5>(p, first, last, row, end);
        case 6: return panels<6>(p, first, last, row, end);
        default: return panels<8>(p, first, last, row, end);
    }
}

// The largest number of a unit becomes ±127. Numbers are compared and rounded as bits, which every compiler vectorizes.
void quantize(const float* x, int k, int8_t* codes, float* scales, int32_t* counts, float* sums) {
    constexpr float round = 12582912.0f;  // 1.5 · 2^23: adding it leaves the nearest whole number in the low bits
    constexpr int32_t rounded = 0x4B400000;
    for (int u = 0; u < k / UNIT; u++, x += UNIT, codes += UNIT) {
        uint32_t bits[UNIT], most = 0;
        std::memcpy(bits, x, sizeof bits);
        for (uint32_t each : bits) most = (each & 0x7FFFFFFF) > most ? (each & 0x7FFFFFFF) : most;
        float largest;
        std::memcpy(&largest, &most, sizeof largest);
        const float to = largest < 1e-30f ? 0.0f : 127.0f / largest;
        int32_t whole[UNIT], count = 0;
        for (int i = 0; i < UNIT; i++) {
            const float shifted = x[i] * to + round;
            std::memcpy(whole + i, &shifted, sizeof shifted);
        }
        for (int i = 0; i < UNIT; i++) {
            codes[i] = (int8_t)(whole[i] - rounded);
            count += codes[i];
        }
        scales[u] = largest < 1e-30f ? 0.0f : largest / 127.0f;
        counts[u] = count;
        sums[u] = scales[u] * (float)count;
    }
}

}  // namespace
}  // namespace squish

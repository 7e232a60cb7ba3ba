// The algorithms, written once. Each file of an instruction set defines `Isa` in an anonymous namespace and includes this:
//
//   LANES             rows of W in a vector; 4 · LANES bytes of codes
//   ROWS, EXACT_ROWS  rows of x in a tile;  BLOCKS  vectors of rows of W in a tile of several rows of x
//   F, I, B           vectors of LANES floats, LANES int32, 4 · LANES bytes
//   zero load half bfloat set1 add mul fma convert store             on F; convert: from I
//   whole(number)                                                    a number as I
//   widen(bytes)      LANES bytes as I;  shifted_left<BITS>, bits_or, at_least on I; as_float: the bits of I
//   bytes shift_and<MASK> join<SHIFT> lookup                         on B;  byte<i>: of each four, as I
//   four(x)           four bytes of x for each lane, as S
//   Dot<CODE, STEPS>  a sum over 4 · STEPS columns, exact: Dot(I first), add(step, B codes, S x), total(counts of x)
//   PAIRS             whether pairs<Codes, FIRST, STEPS, ROWS> does what `dots` does for an even number of rows

#include <cstring>

#include "activations.inl"
#include "numbers.h"

namespace squish {
namespace {

using F = Isa::F;

template <int BITS>
inline Isa::B field(const uint8_t* plane, int step) {
    constexpr int fields = 8 / BITS;
    return Isa::template shift_and<(1 << BITS) - 1>(Isa::bytes(plane + step / fields * PANEL * 4), step % fields * BITS);
}

// Whole numbers of so many bits, in pieces of COLUMNS.
template <int BITS, int COLUMNS = UNIT>
struct Whole {
    static constexpr int CODE = BITS, STEPS = COLUMNS / 4;
    static inline Isa::B codes(const uint8_t* piece, int step) {
        constexpr int low = BITS >= 8 ? 8 : BITS >= 4 ? 4 : 2, high = BITS - low;
        const Isa::B first = field<low>(piece, step);
        if constexpr (high > 0)
            return Isa::template join<low>(first, field<high>(piece + PANEL * COLUMNS * low / 8, step));
        return first;
    }
};

template <int COLUMNS>
struct Fp4 {
    static constexpr int CODE = 5, STEPS = COLUMNS / 4;
    static inline Isa::B codes(const uint8_t* piece, int step) { return Isa::lookup(FP4, field<4>(piece, step)); }
};

// A K-quant: codes whose scales have scales.
template <int BITS, bool WITH_HALVES>
struct Super {
    using Codes = Whole<BITS>;
    static constexpr bool HALVES = WITH_HALVES;
};
template <class>
constexpr bool is_super = false;
template <int BITS, bool WITH_HALVES>
constexpr bool is_super<Super<BITS, WITH_HALVES>> = true;

template <class Codes>
struct WholeColumns {
    static constexpr int STEPS = Codes::STEPS;
    static inline void four(const uint8_t* piece, int step, F scale, F bias, F* w) {
        const Isa::B codes = Codes::codes(piece, step);
        w[0] = Isa::fma(Isa::convert(Isa::template byte<0>(codes)), scale, bias);
        w[1] = Isa::fma(Isa::convert(Isa::template byte<1>(codes)), scale, bias);
        w[2] = Isa::fma(Isa::convert(Isa::template byte<2>(codes)), scale, bias);
        w[3] = Isa::fma(Isa::convert(Isa::template byte<3>(codes)), scale, bias);
    }
};

inline F of_e4m3(Isa::I bits) {
    const Isa::I sign = Isa::template shifted_left<24>(Isa::bits_and(bits, 128));
    const Isa::I rest = Isa::template shifted_left<20>(Isa::bits_and(bits, 127));
    return Isa::mul(Isa::as_float(Isa::bits_or(sign, rest)), Isa::set1(0x1p120f));
}

struct Fp8Columns {
    static constexpr int STEPS = UNIT / 4;
    static inline void four(const uint8_t* piece, int step, F scale, F, F* w) {
        const Isa::B codes = Isa::bytes(piece + step * PANEL * 4);
        w[0] = Isa::mul(of_e4m3(Isa::template byte<0>(codes)), scale);
        w[1] = Isa::mul(of_e4m3(Isa::template byte<1>(codes)), scale);
        w[2] = Isa::mul(of_e4m3(Isa::template byte<2>(codes)), scale);
        w[3] = Isa::mul(of_e4m3(Isa::template byte<3>(codes)), scale);
    }
};

template <Number NUMBER>
inline F number(const uint8_t* at, int64_t index) {
    if constexpr (NUMBER == FLOAT16) return Isa::half((const uint16_t*)at + index);
    if constexpr (NUMBER == BFLOAT16) return Isa::bfloat((const uint16_t*)at + index);
    if constexpr (NUMBER == E8M0)
        return Isa::as_float(Isa::at_least(Isa::template shifted_left<23>(Isa::widen(at + index)), 0x00400000));
    if constexpr (NUMBER == E4M3) return of_e4m3(Isa::widen(at + index));
    return Isa::load((const float*)at + index);
}

template <Number NUMBER>
struct DenseColumns {
    static constexpr int STEPS = UNIT / 4;
    // `piece` points at four bytes for each lane of the first column, as it does for codes.
    static inline void four(const uint8_t* piece, int step, F, F, F* w) {
        for (int i = 0; i < 4; i++) w[i] = number<NUMBER>(piece, (4 * step + i) * PANEL);
    }
};

inline F any_number(Number kind, const uint8_t* at, int lane) {
    switch (kind) {
        case FLOAT32: return number<FLOAT32>(at, lane);
        case FLOAT16: return number<FLOAT16>(at, lane);
        case BFLOAT16: return number<BFLOAT16>(at, lane);
        case E8M0: return number<E8M0>(at, lane);
        default: return number<E4M3>(at, lane);
    }
}

struct Scales {
    F scale, bias;
};

inline Scales scales(const Layout& l, const uint8_t* group, int lane) {
    if (l.kind == DENSE) return {Isa::zero(), Isa::zero()};
    const F scale = any_number(l.number, group, lane);
    if (l.kind == AFFINE) return {scale, any_number(l.number, group + PANEL * l.number_bytes(), lane)};
    if (l.kind == CENTERED) return {scale, Isa::mul(scale, Isa::set1(l.center()))};
    if (l.kind == FP8_KIND) return {scale, Isa::zero()};
    return {Isa::mul(scale, Isa::set1(0.5f)), Isa::mul(scale, Isa::set1(-0.5f * FP4_OFFSET))};
}

// How the groups of a matrix are, where a compiler knows it: loops and switches in the innermost loop cost a third.
template <int COLUMNS, Kind KIND, Number NUMBER>
struct Known {
    static inline int columns(const Layout&) { return COLUMNS; }
    static inline int64_t scales_bytes(const Layout&) { return (KIND == AFFINE ? 4 : 2) * PANEL; }
    static inline Scales scales(const Layout& l, const uint8_t* group, int lane) {
        const F scale = number<NUMBER>(group, lane);
        if constexpr (KIND == AFFINE) return {scale, number<NUMBER>(group + PANEL * 2, lane)};
        return {scale, Isa::mul(scale, Isa::set1(l.center()))};
    }
};
struct Unknown {
    static inline int columns(const Layout& l) { return l.group; }
    static inline int64_t scales_bytes(const Layout& l) { return l.scales_bytes(); }
    static inline Scales scales(const Layout& l, const uint8_t* group, int lane) { return squish::scales(l, group, lane); }
};

// Dots of ROWS rows of x with the codes of BLOCKS vectors of rows, added to d. Codes are unpacked step by step: what is
// unpacked serves all rows, and what is read of x all blocks. counts: of x, for codes of 8 bits.
template <class Codes, int FIRST, int STEPS, int ROWS, int BLOCKS, class Set = Isa>
inline void dots(const uint8_t* piece, const int8_t* x, int64_t stride, const int32_t* counts, int64_t next, Isa::I (*d)[ROWS]) {
    if constexpr (Set::PAIRS && ROWS % 2 == 0 && BLOCKS == 1)
        return Set::template pairs<Codes, FIRST, STEPS, ROWS>(piece, x, stride, counts, next, *d);
    using Dot = typename Set::template Dot<Codes::CODE, STEPS>;
    Dot sums[BLOCKS][ROWS];
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; b++)
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) sums[b][r] = Dot(d[b][r]);
#pragma GCC unroll 8
    for (int step = 0; step < STEPS; step++) {
        Isa::B codes[BLOCKS];
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) codes[b] = Codes::codes(piece + b * Isa::LANES * 4, FIRST + step);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            const auto xs = Isa::four(x + r * stride + 4 * step);
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; b++) sums[b][r].add(step, codes[b], xs);
        }
    }
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; b++)
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) d[b][r] = sums[b][r].total(counts + r * next);
}

// Weights that are read into the cache while others are multiplied. Where several tiles share a panel, only the first waits
// for memory: each reads a part of the next panel, `share` bytes with each group.
struct Ahead {
    const uint8_t *at, *end;
    int64_t share;

    SQUISH_HEADER void group() {
        for (end += share; at < end; at += 64) __builtin_prefetch(at);
    }
};

// Rows row … row + ROWS of x, lanes lane … lane + BLOCKS · LANES of a panel.
template <class Codes, class Group, int ROWS, int BLOCKS>
inline void tile(const Product& p, const uint8_t* group, int lane, int row, Ahead& ahead, float (*out)[PANEL]) {
    constexpr int columns = 4 * Codes::STEPS;
    const Layout& l = p.layout;
    const int64_t units = l.k / UNIT, groups = l.groups();
    const int8_t* x = p.x.codes + (int64_t)row * l.k;
    const float* dx = p.x.scales + row * units;
    const int32_t* counts = p.x.counts + row * 2 * units;
    const float* sums = p.sums + row * groups;
    F all[BLOCKS][ROWS];
    for (auto& block : all)
        for (F& one : block) one = Isa::zero();
    int column = 0;
    for (int64_t g = 0; g < groups; g++) {
        const uint8_t* piece = group + Group::scales_bytes(l);
        ahead.group();
        F part[BLOCKS][ROWS];
        for (auto& block : part)
            for (F& one : block) one = Isa::zero();
        for (const int end = column + Group::columns(l); column < end; column += columns) {
            const int unit = column / UNIT;
            Isa::I d[BLOCKS][ROWS];
#pragma GCC unroll 4
            for (auto& block : d)
#pragma GCC unroll 8
                for (Isa::I& one : block) one = Isa::whole(0);
            dots<Codes, 0, Codes::STEPS, ROWS, BLOCKS>(piece + lane * 4, x + column, l.k, counts + 2 * unit, 2 * units, d);
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; b++)
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; r++)
                    part[b][r] = Isa::fma(Isa::convert(d[b][r]), Isa::set1(dx[r * units + unit]), part[b][r]);
            piece += l.piece_bytes();
        }
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) {
            const Scales s = Group::scales(l, group, lane + b * Isa::LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                all[b][r] = Isa::fma(s.scale, part[b][r], all[b][r]);
                all[b][r] = Isa::fma(s.bias, Isa::set1(sums[r * groups + g]), all[b][r]);
            }
        }
        group = piece;
    }
    for (int b = 0; b < BLOCKS; b++)
        for (int r = 0; r < ROWS; r++) Isa::store(out[r] + lane + b * Isa::LANES, all[b][r]);
}

// Scale and minus the minimum of some columns of a K-quant. d, m: of the whole group; small: bytes of the piece.
template <bool HALVES>
inline Scales small_scales(const Layout& l, F d, F m, const uint8_t* small, int half) {
    if constexpr (!HALVES)
        return {Isa::mul(d, Isa::convert(Isa::widen(small))), Isa::mul(m, Isa::convert(Isa::widen(small + PANEL)))};
    const Isa::I byte = Isa::widen(small + half * PANEL);
    if (l.kind == SUPER_CENTERED) {
        const F scale = Isa::mul(d, Isa::add(Isa::convert(byte), Isa::set1(-128.0f)));
        return {scale, Isa::mul(scale, Isa::set1(l.center()))};
    }
    const F minimum = Isa::mul(m, Isa::set1(0.0625f));  // the high bits are sixteen times what they mean
    return {Isa::mul(d, Isa::convert(Isa::bits_and(byte, 15))), Isa::mul(minimum, Isa::convert(Isa::bits_and(byte, 240)))};
}

// Scale of scales and minus that of minima of a group.
inline Scales group_scales(const Layout& l, const uint8_t* group, int lane) {
    const F d = Isa::half((const uint16_t*)group + lane);
    if (l.kind == SUPER_CENTERED) return {d, Isa::zero()};
    return {d, Isa::mul(Isa::half((const uint16_t*)group + PANEL + lane), Isa::set1(-1.0f))};
}

// The same for K-quants. HALVES: each half of a piece has its own scale.
template <class Codes, bool HALVES, int ROWS, int BLOCKS>
inline void super_tile(const Product& p, const uint8_t* group, int lane, int row, Ahead& ahead, float (*out)[PANEL]) {
    constexpr int parts = HALVES ? 2 : 1, steps = Codes::STEPS / parts;
    const Layout& l = p.layout;
    const int64_t units = l.k / UNIT, groups = l.groups(), each = parts * units, code_bytes = l.piece_bytes() - l.small_bytes();
    const int8_t* x = p.x.codes + (int64_t)row * l.k;
    const float* dx = p.x.scales + row * units;
    const bool biased = !HALVES || l.kind == SUPER_HALVES;
    const float* sums = biased ? p.sums + row * each : nullptr;
    static const int32_t none = 0;
    const int32_t* starts = biased ? &none : p.starts + row * each;
    const int64_t next_row = biased ? 0 : each, next = biased ? 0 : 1;
    F all[BLOCKS][ROWS];
    for (auto& block : all)
        for (F& one : block) one = Isa::zero();
    int64_t unit = 0;
    for (int64_t g = 0; g < groups; g++) {
        const uint8_t* piece = group + l.scales_bytes();
        Scales whole[BLOCKS];
        for (int b = 0; b < BLOCKS; b++) whole[b] = group_scales(l, group, lane + b * Isa::LANES);
        for (int u = 0; u < SUPER / UNIT; u++, unit++) {
            ahead.group();
            F products[BLOCKS][ROWS];
#pragma GCC unroll 2
            for (int half = 0; half < parts; half++) {
                const int64_t i = parts * unit + half;
                Isa::I d[BLOCKS][ROWS];
#pragma GCC unroll 4
                for (auto& block : d)
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; r++) block[r] = Isa::whole(HALVES ? starts[r * next_row + i * next] : 0);
                const int8_t* columns = x + i * (UNIT / parts);
                if (half) dots<Codes, steps % Codes::STEPS, steps, ROWS, BLOCKS>(piece + 2 * PANEL + lane * 4, columns, l.k, nullptr, 0, d);
                else dots<Codes, 0, steps, ROWS, BLOCKS>(piece + 2 * PANEL + lane * 4, columns, l.k, nullptr, 0, d);
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++) {
                    const Scales s = small_scales<HALVES>(l, whole[b].scale, whole[b].bias, piece + lane + b * Isa::LANES, half);
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; r++) {
                        const F d_r = Isa::convert(d[b][r]);
                        products[b][r] = half ? Isa::fma(s.scale, d_r, products[b][r]) : Isa::mul(s.scale, d_r);
                        if (biased) all[b][r] = Isa::fma(s.bias, Isa::set1(sums[r * each + i]), all[b][r]);
                    }
                }
            }
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; b++)
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; r++)
                    all[b][r] = Isa::fma(products[b][r], Isa::set1(dx[r * units + unit]), all[b][r]);
            piece += 2 * PANEL + code_bytes;
        }
        group = piece;
    }
    for (int b = 0; b < BLOCKS; b++)
        for (int r = 0; r < ROWS; r++) Isa::store(out[r] + lane + b * Isa::LANES, all[b][r]);
}

// The same in float32: two sums for each unit, of even and of odd columns, so that additions need not wait.
template <class Columns, int ROWS, int BLOCKS>
inline void exact_tile(const Product& p, const uint8_t* group, int lane, int row, float (*out)[PANEL]) {
    const Layout& l = p.layout;
    const int64_t groups = l.groups();
    const float* x = p.rows + row * p.row_stride;
    const int at = l.kind == DENSE ? lane * (int)l.number_bytes() : lane * 4;
    const int next = l.kind == DENSE ? Isa::LANES * (int)l.number_bytes() : Isa::LANES * 4;
    F all[BLOCKS][ROWS];
    for (auto& block : all)
        for (F& one : block) one = Isa::zero();
    for (int64_t g = 0; g < groups; g++) {
        const uint8_t* piece = group + l.scales_bytes();
        Scales s[BLOCKS];
        for (int b = 0; b < BLOCKS; b++) s[b] = scales(l, group, lane + b * Isa::LANES);
        for (int column = 0; column < l.group; column += 4 * Columns::STEPS) {
            F part[BLOCKS][ROWS][2];
            for (auto& block : part)
                for (auto& both : block) both[0] = both[1] = Isa::zero();
            for (int step = 0; step < Columns::STEPS; step++) {
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++) {
                    F w[4];
                    Columns::four(piece + at + b * next, step, s[b].scale, s[b].bias, w);
#pragma GCC unroll 4
                    for (int i = 0; i < 4; i++)
#pragma GCC unroll 8
                        for (int r = 0; r < ROWS; r++)
                            part[b][r][i % 2] =
                                Isa::fma(w[i], Isa::set1(x[r * p.row_stride + 4 * step + i]), part[b][r][i % 2]);
                }
            }
            for (int b = 0; b < BLOCKS; b++)
                for (int r = 0; r < ROWS; r++)
                    all[b][r] = Isa::add(all[b][r], Isa::add(part[b][r][0], part[b][r][1]));
            piece += l.piece_bytes(), x += 4 * Columns::STEPS;
        }
        group = piece;
    }
    for (int b = 0; b < BLOCKS; b++)
        for (int r = 0; r < ROWS; r++) Isa::store(out[r] + lane + b * Isa::LANES, all[b][r]);
}

// The same for K-quants.
template <class Columns, bool HALVES, int ROWS, int BLOCKS>
inline void super_exact_tile(const Product& p, const uint8_t* group, int lane, int row, float (*out)[PANEL]) {
    constexpr int parts = HALVES ? 2 : 1, steps = Columns::STEPS / parts;
    const Layout& l = p.layout;
    const float* x = p.rows + row * p.row_stride;
    F all[BLOCKS][ROWS];
    for (auto& block : all)
        for (F& one : block) one = Isa::zero();
    for (int64_t g = 0; g < l.groups(); g++) {
        const uint8_t* piece = group + l.scales_bytes();
        for (int u = 0; u < SUPER / UNIT; u++, piece += l.piece_bytes(), x += UNIT)
            for (int b = 0; b < BLOCKS; b++) {
                const int at = lane + b * Isa::LANES;
                const Scales whole = group_scales(l, group, at);
                F part[ROWS][2];
                for (auto& both : part) both[0] = both[1] = Isa::zero();
                for (int half = 0; half < parts; half++) {
                    const Scales s = small_scales<HALVES>(l, whole.scale, whole.bias, piece + at, half);
                    for (int step = half * steps; step < (half + 1) * steps; step++) {
                        F w[4];
                        Columns::four(piece + 2 * PANEL + at * 4, step, s.scale, s.bias, w);
#pragma GCC unroll 4
                        for (int i = 0; i < 4; i++)
#pragma GCC unroll 8
                            for (int r = 0; r < ROWS; r++)
                                part[r][i % 2] = Isa::fma(w[i], Isa::set1(x[r * p.row_stride + 4 * step + i]), part[r][i % 2]);
                    }
                }
                for (int r = 0; r < ROWS; r++) all[b][r] = Isa::add(all[b][r], Isa::add(part[r][0], part[r][1]));
            }
        group = piece;
    }
    for (int b = 0; b < BLOCKS; b++)
        for (int r = 0; r < ROWS; r++) Isa::store(out[r] + lane + b * Isa::LANES, all[b][r]);
}

inline void put(const Product& p, int64_t panel, int row, const float* out) {
    const int64_t first = panel * PANEL, width = p.layout.n - first < PANEL ? p.layout.n - first : PANEL;
    float* y = p.y + row * p.y_stride + first;
    if (!p.added) std::memcpy(y, out, width * sizeof(float));
    for (int64_t i = 0; p.added && i < width; i++) y[i] = out[i] + p.added[first + i];
}

// A format whose groups are known.
template <class Format, class Group>
struct Grouped {};
template <class Format>
struct Parts {
    using Codes = Format;
    using Group = Unknown;
};
template <class Format, class Known>
struct Parts<Grouped<Format, Known>> {
    using Codes = Format;
    using Group = Known;
};

// What a peak adds: its codes times the weights' in `piece`, which are those of a panel's first lane.
template <class Codes, class Scale>
inline void add_peak(const Peak& peak, const uint8_t* piece, int step, int32_t start, Scale&& scale, F* all) {
    const int32_t counts[2] = {peak.count, 0};
    for (int lane = 0; lane < PANEL; lane += Isa::LANES) {
        typename Isa::template Dot<Codes::CODE, 1> sum(Isa::whole(start));
        sum.add(0, Codes::codes(piece + lane * 4, step), Isa::four(peak.codes));
        const F product = Isa::mul(scale(lane), Isa::convert(sum.total(counts)));
        F& one = all[lane / Isa::LANES];
        one = Isa::fma(product, Isa::set1(peak.scale), one);
    }
}

template <class Format>
inline void add_peak(const Product& p, const uint8_t* panel, const Peak& peak, F* all) {
    using Codes = typename Parts<Format>::Codes;
    using Group = typename Parts<Format>::Group;
    constexpr int columns = 4 * Codes::STEPS;
    const Layout& l = p.layout;
    const int column = 4 * peak.step, width = Group::columns(l), inside = column % width;
    const uint8_t* group = panel + column / width * l.group_bytes();
    const uint8_t* piece = group + Group::scales_bytes(l) + inside / columns * l.piece_bytes();
    const auto scale = [&](int lane) { return Group::scales(l, group, lane).scale; };
    add_peak<Codes>(peak, piece, inside % columns / 4, 0, scale, all);
}

// The same for K-quants.
template <class Format>
inline void add_super_peak(const Product& p, const uint8_t* panel, const Peak& peak, F* all) {
    using Codes = typename Format::Codes;
    const Layout& l = p.layout;
    const int unit = peak.step / Codes::STEPS, step = peak.step % Codes::STEPS, half = 2 * step / Codes::STEPS;
    const uint8_t* group = panel + unit / (SUPER / UNIT) * l.group_bytes();
    const uint8_t* piece = group + l.scales_bytes() + unit % (SUPER / UNIT) * l.piece_bytes();
    const auto scale = [&](int lane) {
        const Scales whole = group_scales(l, group, lane);
        return small_scales<Format::HALVES>(l, whole.scale, whole.bias, piece + lane, half).scale;
    };
    const int32_t start = l.kind == SUPER_CENTERED ? -peak.count * (1 << (l.bits - 1)) : 0;
    add_peak<Codes>(peak, piece + 2 * PANEL, step, start, scale, all);
}

// What the peaks of some rows add to `out`, whose first row is `row`. One at a time: a loop over the few of each row would end
// as no processor foresees.
template <class Format>
__attribute__((noinline)) void add_peaks(const Product& p, const uint8_t* panel, int row, const Peak* end, float (*out)[PANEL]) {
    for (const Peak* peak = p.x.peaks + p.x.ends[row]; peak < end; peak++) {
        float* to = out[peak->row - p.x.row - row];
        F all[PANEL / Isa::LANES];
        for (int lane = 0; lane < PANEL; lane += Isa::LANES) all[lane / Isa::LANES] = Isa::load(to + lane);
        if constexpr (is_super<Format>) add_super_peak<Format>(p, panel, *peak, all);
        else add_peak<Format>(p, panel, *peak, all);
        for (int lane = 0; lane < PANEL; lane += Isa::LANES) Isa::store(to + lane, all[lane / Isa::LANES]);
    }
}

// ROWS rows of x against a whole panel.
template <class Format, int ROWS, bool EXACT>
void rows(const Product& p, int64_t panel, int row, Ahead& ahead) {
    constexpr int blocks = ROWS == 1 ? PANEL / Isa::LANES : EXACT ? 1 : Isa::BLOCKS;
    float out[ROWS][PANEL];
    const uint8_t* weights = p.weights + panel * p.layout.panel_bytes();
    for (int lane = 0; lane < PANEL; lane += blocks * Isa::LANES)
        if constexpr (is_super<Format> && EXACT)
            super_exact_tile<WholeColumns<typename Format::Codes>, Format::HALVES, ROWS, blocks>(p, weights, lane, row, out);
        else if constexpr (is_super<Format>)
            super_tile<typename Format::Codes, Format::HALVES, ROWS, blocks>(p, weights, lane, row, ahead, out);
        else if constexpr (EXACT) exact_tile<Format, ROWS, blocks>(p, weights, lane, row, out);
        else tile<typename Parts<Format>::Codes, typename Parts<Format>::Group, ROWS, blocks>(p, weights, lane, row, ahead, out);
    if constexpr (!EXACT)
        if (p.x.ends[row] < p.x.ends[row + ROWS]) add_peaks<Format>(p, weights, row, p.x.peaks + p.x.ends[row + ROWS], out);
    for (int r = 0; r < ROWS; r++) put(p, panel, row + r, out[r]);
}

template <class Format, bool EXACT>
void panels(const Product& p, int64_t first, int64_t last, int row, int end) {
    constexpr int most = EXACT ? Isa::EXACT_ROWS : Isa::ROWS;
    const Layout& l = p.layout;
    const int rest = (end - row) % most, pairs = EXACT ? 0 : rest % 4 / 2;
    const int64_t tiles = (end - row) / most + (most > 4 ? rest / 4 : 0) + pairs + (most > 4 ? rest % 4 : rest) - 2 * pairs;
    const bool many = tiles > 1 || end - row >= 8;  // fewer rows wait for memory in any case
    const int64_t reads = tiles * l.groups() * (l.super() ? SUPER / UNIT : 1);
    for (int64_t panel = first; panel < last; panel++) {
        const uint8_t* next = p.weights + (panel + 1) * l.panel_bytes();
        Ahead ahead = {next, next, many && panel + 1 < last ? (l.panel_bytes() + reads - 1) / reads : 0};
        int r = row;
        for (; r + most <= end; r += most) rows<Format, most, EXACT>(p, panel, r, ahead);
        if constexpr (most > 4)
            for (; r + 4 <= end; r += 4) rows<Format, 4, EXACT>(p, panel, r, ahead);
        if constexpr (most > 2 && !EXACT)
            for (; r + 2 <= end; r += 2) rows<Format, 2, EXACT>(p, panel, r, ahead);
        if constexpr (most > 1)
            for (; r < end; r++) rows<Format, 1, EXACT>(p, panel, r, ahead);
    }
}

// Calls `go` with a K-quant's format.
template <class Go>
inline void with_super(const Layout& l, Go&& go) {
    switch (l.bits) {
        case 2: return go(Super<2, true>());
        case 3: return go(Super<3, true>());
        case 4: return go(Super<4, false>());
        case 5: return go(Super<5, false>());
        default: return go(Super<6, true>());
    }
}

// Calls `go` with a format of 4 or 8 bits whose groups are as GGUF's or MLX's usually are; else with the format itself.
template <class Format, class Go>
inline void with_group(const Layout& l, Go&& go) {
    if (l.number == FLOAT16 && l.group == 32 && l.kind == CENTERED) return go(Grouped<Format, Known<32, CENTERED, FLOAT16>>());
    if (l.number == FLOAT16 && l.group == 32 && l.kind == AFFINE) return go(Grouped<Format, Known<32, AFFINE, FLOAT16>>());
    if (l.number == FLOAT16 && l.group == 64 && l.kind == AFFINE) return go(Grouped<Format, Known<64, AFFINE, FLOAT16>>());
    if (l.number == BFLOAT16 && l.group == 64 && l.kind == AFFINE) return go(Grouped<Format, Known<64, AFFINE, BFLOAT16>>());
    go(Format());
}

void product(const Product& p, int64_t first, int64_t last, int row, int end) {
    const Layout& l = p.layout;
    const auto multiply = [&](auto format) { panels<decltype(format), false>(p, first, last, row, end); };
    if (l.super()) return with_super(l, multiply);
    if (l.kind == FP4_KIND)
        return l.group < UNIT ? panels<Fp4<16>, false>(p, first, last, row, end)
                              : panels<Fp4<UNIT>, false>(p, first, last, row, end);
    switch (l.bits) {
        case 2: return panels<Whole<2>, false>(p, first, last, row, end);
        case 3: return panels<Whole<3>, false>(p, first, last, row, end);
        case 4: return with_group<Whole<4>>(l, multiply);
        case 5: return panels<Whole<5>, false>(p, first, last, row, end);
        case 6: return panels<Whole<6>, false>(p, first, last, row, end);
        default: return with_group<Whole<8>>(l, multiply);
    }
}

[[maybe_unused]] void exact(const Product& p, int64_t first, int64_t last, int row, int end) {
    const Layout& l = p.layout;
    if (l.super()) return with_super(l, [&](auto format) { panels<decltype(format), true>(p, first, last, row, end); });
    if (l.kind == FP8_KIND) return panels<Fp8Columns, true>(p, first, last, row, end);
    if (l.kind == FP4_KIND)
        return l.group < UNIT ? panels<WholeColumns<Fp4<16>>, true>(p, first, last, row, end)
                              : panels<WholeColumns<Fp4<UNIT>>, true>(p, first, last, row, end);
    if (l.kind == DENSE) {
        if (l.number == FLOAT16) return panels<DenseColumns<FLOAT16>, true>(p, first, last, row, end);
        if (l.number == BFLOAT16) return panels<DenseColumns<BFLOAT16>, true>(p, first, last, row, end);
        return panels<DenseColumns<FLOAT32>, true>(p, first, last, row, end);
    }
    switch (l.bits) {
        case 2: return panels<WholeColumns<Whole<2>>, true>(p, first, last, row, end);
        case 3: return panels<WholeColumns<Whole<3>>, true>(p, first, last, row, end);
        case 4: return panels<WholeColumns<Whole<4>>, true>(p, first, last, row, end);
        case 5: return panels<WholeColumns<Whole<5>>, true>(p, first, last, row, end);
        case 6: return panels<WholeColumns<Whole<6>>, true>(p, first, last, row, end);
        default: return panels<WholeColumns<Whole<8>>, true>(p, first, last, row, end);
    }
}

}  // namespace
}  // namespace squish

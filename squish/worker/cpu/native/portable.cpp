// The reference: plain C++ for every processor. All other kernels give its numbers, to the bit.
#include <cmath>

#include "kernels.h"
#include "numbers.h"

namespace squish {
namespace {

struct Isa {
    static constexpr int LANES = PANEL, ROWS = 1, EXACT_ROWS = 1, BLOCKS = 1;
    static constexpr bool PAIRS = false;
    struct F { float v[LANES]; };
    struct I { int32_t v[LANES]; };
    struct B { uint8_t v[4 * LANES]; };

    template <class T, class Function>
    static T each(Function&& function) {
        T result;
        for (size_t i = 0; i < sizeof result.v / sizeof result.v[0]; i++) result.v[i] = function(i);
        return result;
    }
    static F zero() { return {}; }
    static F load(const float* p) { return each<F>([&](int i) { return p[i]; }); }
    static F half(const uint16_t* p) { return each<F>([&](int i) { return from_half(p[i]); }); }
    static F bfloat(const uint16_t* p) { return each<F>([&](int i) { return from_bfloat(p[i]); }); }
    static F set1(float x) { return each<F>([&](int) { return x; }); }
    static I whole(int32_t x) { return each<I>([&](int) { return x; }); }
    static F add(F a, F b) { return each<F>([&](int i) { return a.v[i] + b.v[i]; }); }
    static F mul(F a, F b) { return each<F>([&](int i) { return a.v[i] * b.v[i]; }); }
    static F fma(F a, F b, F c) { return each<F>([&](int i) { return std::fmaf(a.v[i], b.v[i], c.v[i]); }); }
    static F convert(I a) { return each<F>([&](int i) { return (float)a.v[i]; }); }
    static void store(float* p, F a) { for (int i = 0; i < LANES; i++) p[i] = a.v[i]; }
    static F as_float(I a) { return each<F>([&](int i) { return from_bits((uint32_t)a.v[i]); }); }
    static I widen(const uint8_t* p) { return each<I>([&](int i) { return (int32_t)p[i]; }); }
    template <int BITS>
    static I shifted_left(I a) { return each<I>([&](int i) { return (int32_t)((uint32_t)a.v[i] << BITS); }); }
    static I bits_or(I a, I b) { return each<I>([&](int i) { return a.v[i] | b.v[i]; }); }
    static I bits_and(I a, int mask) { return each<I>([&](int i) { return a.v[i] & mask; }); }
    static I at_least(I a, int least) { return each<I>([&](int i) { return a.v[i] < least ? least : a.v[i]; }); }
    template <int INDEX>
    static I byte(B codes) { return each<I>([&](int i) { return (int32_t)codes.v[4 * i + INDEX]; }); }
    static B lookup(const uint8_t* table, B index) { return each<B>([&](int i) { return table[index.v[i]]; }); }
    static B bytes(const uint8_t* p) { return each<B>([&](int i) { return p[i]; }); }
    template <int MASK>
    static B shift_and(B a, int shift) { return each<B>([&](int i) { return (uint8_t)(a.v[i] >> shift & MASK); }); }
    template <int SHIFT>
    static B join(B low, B high) { return each<B>([&](int i) { return (uint8_t)(low.v[i] | high.v[i] << SHIFT); }); }

    static const int8_t* four(const int8_t* x) { return x; }
    template <int, int>
    struct Dot {
        I sum;
        Dot() = default;
        explicit Dot(I first) : sum(first) {}
        void add(int, B codes, const int8_t* x) {
            for (int i = 0; i < 4 * LANES; i++) sum.v[i / 4] += codes.v[i] * x[i % 4];
        }
        I total(const int32_t*) const { return sum; }
    };
};

}  // namespace
}  // namespace squish

#include "kernels.inl"

namespace squish {
const Kernels portable = {"portable", quantize, product, exact};
}

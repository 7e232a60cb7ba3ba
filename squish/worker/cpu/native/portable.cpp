// The reference: plain C++ for every processor. All other kernels give its numbers, to the bit.
#include <cmath>

#include "kernels.h"

namespace squish {
namespace {

struct Isa {
    static constexpr int LANES = PANEL, ROWS = 4;
    struct F { float v[LANES]; };
    struct I { int32_t v[LANES]; };
    struct B { uint8_t v[4 * LANES]; };

    template <class T, class Function>
    static T each(Function&& function) {
        T result;
        for (size_t i = 0; i < sizeof result.v / sizeof result.v[0]; i++) result.v[i] = function(i);
        return result;
    }
    static float widen(uint32_t bits) {
        float value;
        __builtin_memcpy(&value, &bits, 4);
        return value;
    }
    // Of float16, subnormal numbers and infinities included.
    static float half_of(uint16_t h) {
        const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
        if (exponent == 31) return widen(sign | 0x7F800000 | mantissa << 13);
        if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
        return widen(sign | (exponent + 112) << 23 | mantissa << 13);
    }

    static F zero() { return {}; }
    static F load(const float* p) { return each<F>([&](int i) { return p[i]; }); }
    static F half(const uint16_t* p) { return each<F>([&](int i) { return half_of(p[i]); }); }
    static F bfloat(const uint16_t* p) { return each<F>([&](int i) { return widen((uint32_t)p[i] << 16); }); }
    static F set1(float x) { return each<F>([&](int) { return x; }); }
    static F fma(F a, F b, F c) { return each<F>([&](int i) { return std::fmaf(a.v[i], b.v[i], c.v[i]); }); }
    static F convert(I a) { return each<F>([&](int i) { return (float)a.v[i]; }); }
    static void store(float* p, F a) { for (int i = 0; i < LANES; i++) p[i] = a.v[i]; }
    static B bytes(const uint8_t* p) { return each<B>([&](int i) { return p[i]; }); }
    template <int MASK>
    static B shift_and(B a, int shift) { return each<B>([&](int i) { return (uint8_t)(a.v[i] >> shift & MASK); }); }
    template <int SHIFT>
    static B join(B low, B high) { return each<B>([&](int i) { return (uint8_t)(low.v[i] | high.v[i] << SHIFT); }); }

    template <int CODE, int ROWS>
    static void dots(const B* codes, const int8_t* x, int64_t stride, const int32_t*, int64_t, I* d) {
        for (int r = 0; r < ROWS; r++) {
            d[r] = {};
            for (int step = 0; step < STEPS; step++)
                for (int i = 0; i < 4 * LANES; i++)
                    d[r].v[i / 4] += codes[step].v[i] * x[r * stride + 4 * step + i % 4];
        }
    }
};

}  // namespace
}  // namespace squish

#include "kernels.inl"

namespace squish {
const Kernels portable = {"portable", quantize, product};
}

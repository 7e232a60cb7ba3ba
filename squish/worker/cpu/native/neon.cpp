// NEON. Compiled three times: plain, with dot products, and with products of small matrices (i8mm).
#include <arm_neon.h>

#include "kernels.h"

namespace squish {
namespace {

struct Isa {
    static constexpr int LANES = 4, ROWS = 8, EXACT_ROWS = 8, BLOCKS = 1;
    using F = float32x4_t;
    using I = int32x4_t;
    using B = uint8x16_t;

    static F zero() { return vdupq_n_f32(0); }
    static F load(const float* p) { return vld1q_f32(p); }
    static F half(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
    static F bfloat(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
    static F set1(float x) { return vdupq_n_f32(x); }
    static I whole(int32_t x) { return vdupq_n_s32(x); }
    static F add(F a, F b) { return vaddq_f32(a, b); }
    static F mul(F a, F b) { return vmulq_f32(a, b); }
    static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
    static F convert(I a) { return vcvtq_f32_s32(a); }
    static void store(float* p, F a) { vst1q_f32(p, a); }
    static F as_float(I a) { return vreinterpretq_f32_s32(a); }
    static I widen(const uint8_t* p) {
        uint32_t four;
        __builtin_memcpy(&four, p, 4);
        const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
        return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)));
    }
    template <int BITS>
    static I shifted_left(I a) { return vshlq_n_s32(a, BITS); }
    static I bits_or(I a, I b) { return vorrq_s32(a, b); }
    static I bits_and(I a, int mask) { return vandq_s32(a, vdupq_n_s32(mask)); }
    static I at_least(I a, int least) { return vmaxq_s32(a, vdupq_n_s32(least)); }
    template <int INDEX>
    static I byte(B codes) {
        const uint32x4_t words = vreinterpretq_u32_u8(codes);
        return bits_and(vreinterpretq_s32_u32(INDEX ? vshrq_n_u32(words, INDEX ? 8 * INDEX : 1) : words), 255);
    }
    static B bytes(const uint8_t* p) { return vld1q_u8(p); }
    template <int MASK>
    static B shift_and(B a, int shift) {
        return MASK == 255 ? a : vandq_u8(vshlq_u8(a, vdupq_n_s8((int8_t)-shift)), vdupq_n_u8(MASK));
    }
    template <int SHIFT>
    static B join(B low, B high) { return vorrq_u8(low, vshlq_n_u8(high, SHIFT & 7)); }
    static B lookup(const uint8_t* table, B index) { return vqtbl1q_u8(vld1q_u8(table), index); }

    // Codes of 8 bits less 128, because products are of signed numbers; others fit as they are.
    template <int CODE>
    static int8x16_t signed_codes(B codes) {
        return vreinterpretq_s8_u8(CODE == 8 ? veorq_u8(codes, vdupq_n_u8(128)) : codes);
    }
    static int8x16_t four(const int8_t* x) {
        int32_t together;
        __builtin_memcpy(&together, x, 4);
        return vreinterpretq_s8_s32(vdupq_n_s32(together));
    }

    // Codes of 8 bits have lost 128.
    template <int CODE>
    static I restored(I sum, const int32_t* counts) {
        return CODE == 8 ? vaddq_s32(sum, vdupq_n_s32(128 * (counts[0] + counts[1]))) : sum;
    }

    template <int CODE, int>
    struct Dot {
        I sum, second;  // second, without dot products: of the last two rows, pairs of columns in both
        Dot() = default;
        explicit Dot(I first) : sum(vdupq_n_s32(0)), second(sum), first(first) {}
        void add(int, B codes, int8x16_t x) {
#ifdef __ARM_FEATURE_DOTPROD
            sum = vdotq_s32(sum, signed_codes<CODE>(codes), x);
#else
            const int8x16_t c = signed_codes<CODE>(codes);
            sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(c), vget_low_s8(x)));
            second = vpadalq_s16(second, vmull_s8(vget_high_s8(c), vget_high_s8(x)));
#endif
        }
        I total(const int32_t* counts) const {
#ifdef __ARM_FEATURE_DOTPROD
            return restored<CODE>(vaddq_s32(first, sum), counts);
#else
            return restored<CODE>(vaddq_s32(first, vpaddq_s32(sum, second)), counts);
#endif
        }

       private:
        I first;
    };

#ifdef __ARM_FEATURE_MATMUL_INT8
    static constexpr bool PAIRS = true;
    // Two rows of x at a time, eight columns a product.
    template <class Codes, int FIRST, int STEPS, int ROWS>
    static void pairs(const uint8_t* piece, const int8_t* x, int64_t stride, const int32_t* counts, int64_t next, I* d) {
        constexpr int CODE = Codes::CODE;
        I low[ROWS / 2], high[ROWS / 2];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS / 2; r++) low[r] = high[r] = vdupq_n_s32(0);
#pragma GCC unroll 4
        for (int step = 0; step < STEPS; step += 2) {
            const int32x4_t a = vreinterpretq_s32_s8(signed_codes<CODE>(Codes::codes(piece, FIRST + step)));
            const int32x4_t b = vreinterpretq_s32_s8(signed_codes<CODE>(Codes::codes(piece, FIRST + step + 1)));
            const int8x16_t first = vreinterpretq_s8_s32(vzip1q_s32(a, b)), last = vreinterpretq_s8_s32(vzip2q_s32(a, b));
#pragma GCC unroll 4
            for (int r = 0; r < ROWS / 2; r++) {
                const int8_t* from = x + 2 * r * stride + 4 * step;
                const int8x16_t xs = vcombine_s8(vld1_s8(from), vld1_s8(from + stride));
                low[r] = vmmlaq_s32(low[r], first, xs), high[r] = vmmlaq_s32(high[r], last, xs);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r += 2) {
            const I even = vuzp1q_s32(low[r / 2], high[r / 2]), odd = vuzp2q_s32(low[r / 2], high[r / 2]);
            d[r] = restored<CODE>(vaddq_s32(d[r], even), counts + r * next);
            d[r + 1] = restored<CODE>(vaddq_s32(d[r + 1], odd), counts + (r + 1) * next);
        }
    }
#else
    static constexpr bool PAIRS = false;
#endif
};

}  // namespace
}  // namespace squish

#include "kernels.inl"

namespace squish {
void neon_exact(const Product& p, int64_t first, int64_t last, int row, int end)
#if defined(__ARM_FEATURE_MATMUL_INT8)
    ;
const Kernels i8mm = {"i8mm", quantize, product, neon_exact};
#elif defined(__ARM_FEATURE_DOTPROD)
    ;
const Kernels dotprod = {"dotprod", quantize, product, neon_exact};
#else
{
    exact(p, first, last, row, end);
}
const Kernels neon = {"neon", quantize, product, neon_exact};
#endif
}  // namespace squish

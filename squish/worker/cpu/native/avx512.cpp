// AVX-512. Compiled twice: with VNNI, and for processors without it.
#include <immintrin.h>

#include "kernels.h"

namespace squish {
namespace {

struct Isa {
    static constexpr int LANES = 16, ROWS = 8, EXACT_ROWS = 8;
    using F = __m512;
    using I = __m512i;
    using B = __m512i;

    static F zero() { return _mm512_setzero_ps(); }
    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static F half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
    static F bfloat(const uint16_t* p) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
    }
    static F set1(float x) { return _mm512_set1_ps(x); }
    static I whole(int32_t x) { return _mm512_set1_epi32(x); }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F convert(I a) { return _mm512_cvtepi32_ps(a); }
    static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
    static F as_float(I a) { return _mm512_castsi512_ps(a); }
    static I widen(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
    template <int BITS>
    static I shifted_left(I a) { return _mm512_slli_epi32(a, BITS); }
    static I bits_or(I a, I b) { return _mm512_or_si512(a, b); }
    static I bits_and(I a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi32(mask)); }
    static I at_least(I a, int least) { return _mm512_max_epi32(a, _mm512_set1_epi32(least)); }
    template <int INDEX>
    static I byte(B codes) { return bits_and(_mm512_srli_epi32(codes, 8 * INDEX), 255); }
    static B bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
    template <int MASK>
    static B shift_and(B a, int shift) {
        return MASK == 255 ? a : _mm512_and_si512(_mm512_srli_epi16(a, shift), _mm512_set1_epi8((char)MASK));
    }
    template <int SHIFT>
    static B join(B low, B high) { return _mm512_or_si512(low, _mm512_slli_epi16(high, SHIFT)); }
    static B lookup(const uint8_t* table, B index) {
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)), index);
    }
    static I four(const int8_t* x) {
        int32_t together;
        __builtin_memcpy(&together, x, 4);
        return _mm512_set1_epi32(together);
    }

    template <int CODE, int STEPS, int ROWS>
    static void dots(const B* codes, const int8_t* x, int64_t stride, const int32_t* counts, int64_t count_stride, I* d) {
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            I sum = d[r];
#ifdef __AVX512VNNI__
#pragma GCC unroll 8
            for (int step = 0; step < STEPS; step++) sum = _mm512_dpbusd_epi32(sum, codes[step], four(x + r * stride + 4 * step));
#else
            const I ones = _mm512_set1_epi16(1);
            if constexpr (CODE == 8) {
                // Two products of 255 · 127 do not fit into 16 bits: codes less 128 times x, and 128 times x.
                const I half = _mm512_set1_epi8((char)128);
#pragma GCC unroll 8
                for (int step = 0; step < STEPS; step++) {
                    const I less = _mm512_xor_si512(codes[step], half), xs = four(x + r * stride + 4 * step);
                    const __mmask64 negative = _mm512_movepi8_mask(less);
                    const I turned = _mm512_mask_sub_epi8(xs, negative, _mm512_setzero_si512(), xs);
                    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_abs_epi8(less), turned), ones));
                }
                sum = _mm512_add_epi32(sum, _mm512_set1_epi32(128 * (counts[r * count_stride] + counts[r * count_stride + 1])));
            } else {
                // Sums of two products that fit into 16 bits.
                constexpr int fit = CODE <= 4 ? 8 : CODE == 5 ? 4 : 2, most = fit < STEPS ? fit : STEPS;
#pragma GCC unroll 4
                for (int step = 0; step < STEPS; step += most) {
                    I short_sum = _mm512_maddubs_epi16(codes[step], four(x + r * stride + 4 * step));
#pragma GCC unroll 8
                    for (int s = 1; s < most; s++)
                        short_sum = _mm512_add_epi16(
                            short_sum, _mm512_maddubs_epi16(codes[step + s], four(x + r * stride + 4 * (step + s))));
                    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(short_sum, ones));
                }
            }
#endif
            d[r] = sum;
        }
    }
};

}  // namespace
}  // namespace squish

#include "kernels.inl"

namespace squish {
void avx512_exact(const Product& p, int64_t first, int64_t last, int row, int end)
#ifdef __AVX512VNNI__
    ;
const Kernels avx512vnni = {"avx512vnni", quantize, product, avx512_exact};
#else
{
    exact(p, first, last, row, end);
}
const Kernels avx512 = {"avx512", quantize, product, avx512_exact};
#endif
}  // namespace squish

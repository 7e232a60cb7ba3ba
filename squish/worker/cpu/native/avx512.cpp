// AVX-512. Compiled twice: with VNNI, and for processors without it.
#include <immintrin.h>

#include "kernels.h"

namespace squish {
namespace {

struct Isa {
    static constexpr int LANES = 16, ROWS = 8, EXACT_ROWS = 8, BLOCKS = 1;
    static constexpr bool PAIRS = false;
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

#ifdef __AVX512VNNI__
    template <int, int>
    struct Dot {
        I sum;
        Dot() = default;
        explicit Dot(I first) : sum(first) {}
        void add(int, B codes, I x) { sum = _mm512_dpbusd_epi32(sum, codes, x); }
        I total(const int32_t*) const { return sum; }
    };
#else
    template <int CODE, int STEPS>
    struct Dot {
        // So many sums of two products fit into 16 bits.
        static constexpr int fit = CODE <= 4 ? 8 : CODE == 5 ? 4 : CODE == 6 ? 2 : 1, most = fit < STEPS ? fit : STEPS;
        I sum, pairs;
        Dot() = default;
        explicit Dot(I first) : sum(first) {}
        void add(int step, B codes, I x) {
            I products;
            if constexpr (CODE == 8) {
                // Two products of 255 · 127 do not fit: codes less 128 times x, and 128 times x.
                const I less = _mm512_xor_si512(codes, _mm512_set1_epi8((char)128));
                const I turned = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(less), _mm512_setzero_si512(), x);
                products = _mm512_maddubs_epi16(_mm512_abs_epi8(less), turned);
            } else {
                products = _mm512_maddubs_epi16(codes, x);
            }
            pairs = step % most ? _mm512_add_epi16(pairs, products) : products;
            asm("" : "+v"(pairs));  // or compilers make a tree of the sums, whose leaves find no registers
            if (step % most == most - 1) sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
        }
        I total(const int32_t* counts) const {
            return CODE == 8 ? _mm512_add_epi32(sum, _mm512_set1_epi32(128 * (counts[0] + counts[1]))) : sum;
        }
    };
#endif
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

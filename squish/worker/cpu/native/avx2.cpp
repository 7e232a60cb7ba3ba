// AVX2 with FMA. Compiled twice: plain, and with VNNI for vectors of 256 bits.
#include <immintrin.h>

#include "kernels.h"

namespace squish {
namespace {

struct Isa {
    static constexpr int LANES = 8, ROWS = 4, EXACT_ROWS = 4, BLOCKS = 2;
    static constexpr bool PAIRS = false;
    using F = __m256;
    using I = __m256i;
    using B = __m256i;

    static F zero() { return _mm256_setzero_ps(); }
    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static F half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
    static F bfloat(const uint16_t* p) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
    }
    static F set1(float x) { return _mm256_set1_ps(x); }
    static I whole(int32_t x) { return _mm256_set1_epi32(x); }
    static F add(F a, F b) { return _mm256_add_ps(a, b); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F convert(I a) { return _mm256_cvtepi32_ps(a); }
    static void store(float* p, F a) { _mm256_storeu_ps(p, a); }
    static F as_float(I a) { return _mm256_castsi256_ps(a); }
    static I widen(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
    template <int BITS>
    static I shifted_left(I a) { return _mm256_slli_epi32(a, BITS); }
    static I bits_or(I a, I b) { return _mm256_or_si256(a, b); }
    static I bits_and(I a, int mask) { return _mm256_and_si256(a, _mm256_set1_epi32(mask)); }
    static I at_least(I a, int least) { return _mm256_max_epi32(a, _mm256_set1_epi32(least)); }
    template <int INDEX>
    static I byte(B codes) { return bits_and(_mm256_srli_epi32(codes, 8 * INDEX), 255); }
    static B bytes(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
    template <int MASK>
    static B shift_and(B a, int shift) {
        return MASK == 255 ? a : _mm256_and_si256(_mm256_srli_epi16(a, shift), _mm256_set1_epi8((char)MASK));
    }
    template <int SHIFT>
    static B join(B low, B high) { return _mm256_or_si256(low, _mm256_slli_epi16(high, SHIFT)); }
    static B lookup(const uint8_t* table, B index) {
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table)), index);
    }
    static I four(const int8_t* x) {
        int32_t together;
        __builtin_memcpy(&together, x, 4);
        return _mm256_set1_epi32(together);
    }

#ifdef __AVXVNNI__
    template <int, int>
    struct Dot {
        I sum;
        Dot() = default;
        explicit Dot(I first) : sum(first) {}
        void add(int, B codes, I x) { sum = _mm256_dpbusd_avx_epi32(sum, codes, x); }
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
                const I less = _mm256_xor_si256(codes, _mm256_set1_epi8((char)128));
                products = _mm256_maddubs_epi16(_mm256_abs_epi8(less), _mm256_sign_epi8(x, less));
            } else {
                products = _mm256_maddubs_epi16(codes, x);
            }
            pairs = step % most ? _mm256_add_epi16(pairs, products) : products;
            asm("" : "+x"(pairs));  // or compilers make a tree of the sums, whose leaves find no registers
            if (step % most == most - 1) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
        I total(const int32_t* counts) const {
            return CODE == 8 ? _mm256_add_epi32(sum, _mm256_set1_epi32(128 * (counts[0] + counts[1]))) : sum;
        }
    };
#endif
};

}  // namespace
}  // namespace squish

#include "kernels.inl"

namespace squish {
void avx2_exact(const Product& p, int64_t first, int64_t last, int row, int end)
#ifdef __AVXVNNI__
    ;
const Kernels avxvnni = {"avxvnni", quantize, product, avx2_exact};
#else
{
    exact(p, first, last, row, end);
}
const Kernels avx2 = {"avx2", quantize, product, avx2_exact};
#endif
}  // namespace squish

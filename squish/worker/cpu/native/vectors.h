// Owns vectors of floats in the instruction set that the including file has chosen, and the functions on them that the
// layers need. Everything is static: each file that includes it has its own, compiled for its own processor.
//
// Before including it, define one of SQUISH_AVX512, SQUISH_AVX2, or neither for what every processor has.
// Products that are added to something are written as `madd`, so that a compiler has nothing to contract in one place
// and not in another: the same numbers must come out of every loop.
#pragma once

#if defined(SQUISH_AVX512) || defined(SQUISH_AVX2)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "numbers.h"

#define SQUISH_INLINE static inline __attribute__((always_inline, unused))

namespace {

#if defined(SQUISH_AVX512)
constexpr int kWidth = 16, kRows = 4;
typedef float Floats __attribute__((vector_size(64)));
typedef int Ints __attribute__((vector_size(64)));
#elif defined(SQUISH_AVX2)
constexpr int kWidth = 8, kRows = 2;
typedef float Floats __attribute__((vector_size(32)));
typedef int Ints __attribute__((vector_size(32)));
#else
#if defined(__aarch64__)
constexpr int kWidth = 4, kRows = 4;
#else
constexpr int kWidth = 4, kRows = 2;
#endif
typedef float Floats __attribute__((vector_size(16)));
typedef int Ints __attribute__((vector_size(16)));
#endif

SQUISH_INLINE Floats all(float value) {
#if defined(SQUISH_AVX512)
    return (Floats)_mm512_set1_ps(value);
#elif defined(SQUISH_AVX2)
    return (Floats)_mm256_set1_ps(value);
#else
    return Floats{value, value, value, value};
#endif
}

SQUISH_INLINE Floats load(const float* from) {
    Floats value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
}

SQUISH_INLINE void store(float* to, Floats value) { __builtin_memcpy(to, &value, sizeof(value)); }

// The first `count` < kWidth numbers, and zeros.
SQUISH_INLINE Floats load_part(const float* from, int count) {
#if defined(SQUISH_AVX512)
    return (Floats)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#else
    float numbers[kWidth] = {};
    for (int i = 0; i < count; i++) numbers[i] = from[i];
    return load(numbers);
#endif
}

SQUISH_INLINE void store_part(float* to, Floats value, int count) {
    float numbers[kWidth];
    store(numbers, value);
    for (int i = 0; i < count; i++) to[i] = numbers[i];
}

// As many numbers of float16.
SQUISH_INLINE Floats load_halves(const void* from) {
#if defined(SQUISH_AVX512)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(SQUISH_AVX2)
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#elif defined(__aarch64__)
    float16x4_t halves;
    __builtin_memcpy(&halves, from, sizeof(halves));
    return (Floats)vcvt_f32_f16(halves);
#else
    uint16_t halves[kWidth];
    __builtin_memcpy(halves, from, sizeof(halves));
    return Floats{squish::from_half(halves[0]), squish::from_half(halves[1]), squish::from_half(halves[2]), squish::from_half(halves[3])};
#endif
}

SQUISH_INLINE float half_at(const void* from) {
    uint16_t half;
    __builtin_memcpy(&half, from, sizeof(half));
#if defined(SQUISH_AVX512) || defined(SQUISH_AVX2)
    return _cvtsh_ss(half);
#elif defined(__aarch64__)
    __fp16 value;
    __builtin_memcpy(&value, &half, sizeof(value));
    return value;
#else
    return squish::from_half(half);
#endif
}

// As many integers of 8 bits.
SQUISH_INLINE Floats load_bytes(const void* from) {
#if defined(SQUISH_AVX512)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#elif defined(SQUISH_AVX2)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#else
    typedef signed char Bytes __attribute__((vector_size(kWidth)));
    Bytes bytes;
    __builtin_memcpy(&bytes, from, sizeof(bytes));
    return __builtin_convertvector(bytes, Floats);
#endif
}

// a · b + c, rounded once where the processor can.
SQUISH_INLINE Floats madd(Floats a, Floats b, Floats c) {
#if defined(SQUISH_AVX512)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(SQUISH_AVX2)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

SQUISH_INLINE Floats maximum(Floats a, Floats b) { return a > b ? a : b; }
SQUISH_INLINE Floats minimum(Floats a, Floats b) { return a < b ? a : b; }

// The nearest numbers of float16; its largest for what is larger.
SQUISH_INLINE void store_halves(void* to, Floats value) {
    value = minimum(maximum(value, all(-65504.0f)), all(65504.0f));
#if defined(SQUISH_AVX512)
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(SQUISH_AVX2)
    _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__aarch64__)
    const float16x4_t halves = vcvt_f16_f32((float32x4_t)value);
    __builtin_memcpy(to, &halves, sizeof(halves));
#else
    uint16_t halves[kWidth];
    for (int i = 0; i < kWidth; i++) halves[i] = squish::to_half(value[i]);
    __builtin_memcpy(to, halves, sizeof(halves));
#endif
}

// The sum of the numbers, always in the same order: halves onto each other.
SQUISH_INLINE float sum(Floats value) {
#if defined(SQUISH_AVX512) || defined(SQUISH_AVX2)
    float numbers[kWidth];
    store(numbers, value);
    __m256 half = _mm256_loadu_ps(numbers);
    if (kWidth == 16) half = _mm256_add_ps(half, _mm256_loadu_ps(numbers + kWidth - 8));
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
#else
    return (value[0] + value[2]) + (value[1] + value[3]);
#endif
}

SQUISH_INLINE float largest(Floats value) {
    float numbers[kWidth];
    store(numbers, value);
    float result = numbers[0];
    for (int i = 1; i < kWidth; i++) result = numbers[i] > result ? numbers[i] : result;
    return result;
}

// e to the power of each; exactly 1 for 0, exactly 0 below -87, and about 1.6e38 from 88 on.
SQUISH_INLINE Floats exponential(Floats power) {
    const Floats rounder = all(12582912.0f);  // adding it leaves an integer in the lowest bits
    Floats x = minimum(maximum(power, all(-87.0f)), all(88.0f));
    Floats shifted = madd(x, all(1.44269504f), rounder);
    Floats n = shifted - rounder;
    Floats r = madd(n, all(-0.693359375f), x);
    r = madd(n, all(2.12194440e-4f), r);
    Floats p = all(1.9875691500e-4f);
    p = madd(p, r, all(1.3981999507e-3f));
    p = madd(p, r, all(8.3334519073e-3f));
    p = madd(p, r, all(4.1665795894e-2f));
    p = madd(p, r, all(1.6666665459e-1f));
    p = madd(p, r, all(5.0000001201e-1f));
    p = madd(p, r * r, r) + all(1.0f);
    Ints exponent = (Ints)shifted << 23;
    Floats result = (Floats)((Ints)p + exponent);
    return power < all(-87.0f) ? all(0.0f) : result;
}

}  // namespace

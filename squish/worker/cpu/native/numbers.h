// Numbers of fewer bits than float32, one at a time. The kernels have forms for whole vectors.
//
// All is `static` here: files are compiled for different processors, and a function that they shared might be kept in the
// form of one that this processor is not.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace squish {

static inline float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// float16, subnormal numbers and infinities included.
static inline float from_half(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
    if (exponent == 31) return from_bits(sign | 0x7F800000 | mantissa << 13);
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

// The nearest float16, of two that are as near the even one; of numbers up to its largest, 65504.
[[maybe_unused]] static inline uint16_t to_half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t sign = bits >> 16 & 0x8000;
    bits &= 0x7FFFFFFF;
    if (bits >= 0x38800000) return sign | (bits - 0x38000000 + 0xFFF + (bits >> 13 & 1)) >> 13;
    const float shifted = from_bits(bits) + 0.5f;  // its last bit is the smallest float16
    std::memcpy(&bits, &shifted, 4);
    return sign | (bits - 0x3F000000);
}

static inline float from_bfloat(uint16_t b) { return from_bits((uint32_t)b << 16); }

// 8 bits of exponent and nothing else: the smallest is 2^-127.
static inline float from_e8m0(uint8_t e) { return from_bits(e ? (uint32_t)e << 23 : 0x00400000); }

// Sign, 4 bits of exponent, 3 of mantissa: the bits of a float32 whose exponent counts from 120 further down.
static inline float from_e4m3(uint8_t e) { return from_bits((uint32_t)(e & 128) << 24 | (uint32_t)(e & 127) << 20) * 0x1p120f; }

// One of several numbers in a row.
[[maybe_unused]] static inline float number_at(Number kind, const uint8_t* at, int64_t index) {
    switch (kind) {
        case FLOAT32: return from_bits(((const uint32_t*)at)[index]);
        case FLOAT16: return from_half(((const uint16_t*)at)[index]);
        case BFLOAT16: return from_bfloat(((const uint16_t*)at)[index]);
        case E8M0: return from_e8m0(at[index]);
        default: return from_e4m3(at[index]);
    }
}

// Twice a number of sign, 2 bits of exponent and 1 of mantissa, and 12: codes of 0 to 24 that multiply as others do.
constexpr int FP4_OFFSET = 12;
constexpr uint8_t FP4[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

}  // namespace squish

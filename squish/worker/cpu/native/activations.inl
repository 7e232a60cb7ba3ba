// Activations of 8 bits, for kernels.inl: compiled for each instruction set, with the same result to the bit.
//
// The largest number of a unit becomes ±127, so one that sticks out takes precision from the 31 beside it. Some models have a
// few channels that do so in every row: they cause most of what rounding costs, and become peaks where they are few.

#include <cmath>
#include <cstring>

#include "numbers.h"

namespace squish {
namespace {

constexpr int STEPS = UNIT / 4;
// How often the mean of the largest numbers of a row's units the largest of a unit may be before it is a peak.
constexpr float PEAK = 3.0f;
constexpr float LOWEST = 1e-30f;  // as good as 0
constexpr float ROUND = 12582912.0f;  // 1.5 · 2^23: adding it leaves the nearest whole number in the low bits
constexpr int32_t ROUNDED = 0x4B400000;

// The largest of some numbers without their signs. They are compared as bits, which every compiler vectorizes.
template <int COUNT>
inline float largest(const float* x) {
    uint32_t bits[COUNT], most = 0;
    std::memcpy(bits, x, sizeof bits);
    for (uint32_t each : bits) most = (each & 0x7FFFFFFF) > most ? (each & 0x7FFFFFFF) : most;
    return from_bits(most);
}

// From which number on one of this row is a peak. largest: of each unit.
inline float threshold(const float* largest, int units) {
    float least = INFINITY;
    for (int round = 0; round < 2; round++) {  // in the second, peaks raise the mean no more than the numbers beside them
        float sum = 0;
        for (int u = 0; u < units; u++) sum += largest[u] < least ? largest[u] : least;
        least = PEAK * (sum / (float)units);
    }
    return least;
}

// The steps of a unit that are peaks, as bits; none where they would be many. most: its largest number, and then what becomes
// ±127. A peak's two codes reach 127 times as far.
inline uint32_t peaks(const float* x, float least, float& most) {
    uint32_t found = 0;
    float rest = most / 127.0f;
    for (int step = 0; step < STEPS; step++) {
        const float each = largest<4>(x + 4 * step);
        if (each > least) found |= 1u << step;
        else if (each > rest) rest = each;
    }
    if (__builtin_popcount(found) > PEAKS) return 0;
    most = rest;
    return found;
}

// Takes what is a multiple of 128 out of four codes.
inline Peak split(int32_t* whole, int step, float scale) {
    Peak peak = {0, step, 128.0f * scale, 0, {}};
    for (int i = 0; i < 4; i++) {
        const int32_t high = (whole[i] + 64) >> 7;
        whole[i] -= 128 * high;
        peak.codes[i] = (int8_t)high;
        peak.count += high;
    }
    return peak;
}

int quantize(const float* x, int k, int8_t* codes, float* scales, int32_t* counts, Peak* peak) {
    const int units = k / UNIT;
    const Peak* none = peak;
    for (int u = 0; u < units; u++) scales[u] = largest<UNIT>(x + u * UNIT);
    const float least = threshold(scales, units);
    for (int u = 0; u < units; u++, x += UNIT, codes += UNIT) {
        float most = scales[u];
        uint32_t high = most > least ? peaks(x, least, most) : 0;
        const float by = most < LOWEST ? 0.0f : 127.0f / most, scale = most < LOWEST ? 0.0f : most / 127.0f;
        int32_t whole[UNIT], count[2] = {};
        for (int i = 0; i < UNIT; i++) {
            const float shifted = x[i] * by + ROUND;
            std::memcpy(whole + i, &shifted, sizeof shifted);
            whole[i] -= ROUNDED;
        }
        for (; high; high &= high - 1) {
            const int step = __builtin_ctz(high);
            *peak = split(whole + 4 * step, u * STEPS + step, scale);
            peak++;
        }
        for (int half = 0; half < 2; half++)
            for (int i = half * HALF; i < (half + 1) * HALF; i++) {
                codes[i] = (int8_t)whole[i];
                count[half] += codes[i];
            }
        scales[u] = scale;
        counts[2 * u] = count[0], counts[2 * u + 1] = count[1];
    }
    return (int)(peak - none);
}

}  // namespace
}  // namespace squish

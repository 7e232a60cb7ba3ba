// Every kernel that the processor can run against the reference, without Python: `make check-arm64` runs it under qemu.
// Products with activations of 8 bits must be equal to the bit, for each number of rows; exact ones nearly.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels.h"

using namespace squish;

namespace {

uint32_t state = 1;
uint32_t random_bits() { return state = state * 1664525u + 1013904223u, state >> 8; }
float random_float() { return (float)random_bits() / (1 << 23) - 1.0f; }

// Random weights whose scales are small numbers of their kind.
std::vector<uint8_t> weights(const Layout& l) {
    std::vector<uint8_t> bytes(l.bytes());
    for (uint8_t& byte : bytes) byte = (uint8_t)random_bits();
    for (int64_t p = 0; p < l.panels(); p++)
        for (int64_t g = 0; g < l.groups(); g++) {
            uint8_t* at = bytes.data() + p * l.panel_bytes() + g * l.group_bytes();
            const int64_t numbers = l.kind == DENSE ? (int64_t)PANEL * UNIT : l.scales_bytes() / l.number_bytes();
            for (int64_t i = 0; i < numbers; i++) {
                const float value = random_float() * 0.1f;
                uint32_t bits;
                std::memcpy(&bits, &value, 4);
                const uint16_t half = (uint16_t)(0x2000 | (random_bits() & 0x8FFF)), brain = (uint16_t)(bits >> 16);
                if (l.number == FLOAT32) std::memcpy(at + 4 * i, &value, 4);
                if (l.number == FLOAT16) std::memcpy(at + 2 * i, &half, 2);
                if (l.number == BFLOAT16) std::memcpy(at + 2 * i, &brain, 2);
                if (l.number == E8M0) at[i] = (uint8_t)(120 + random_bits() % 8);
                if (l.number == E4M3) at[i] = (uint8_t)(random_bits() % 0x70);
            }
            if (l.kind == FP8_KIND)
                for (int64_t i = l.scales_bytes(); i < l.group_bytes(); i++) at[i] &= 0xF7;  // no NaN
        }
    return bytes;
}

struct Case {
    Layout l;
    std::vector<uint8_t> bytes;
    std::vector<float> x, scales, sums;
    std::vector<int8_t> codes;
    std::vector<int32_t> counts, starts;
    std::vector<int64_t> ends;
    std::vector<Peak> peaks;
    int m;

    Case(const Layout& layout, int rows) : l(layout), bytes(weights(layout)), x((size_t)rows * layout.k), m(rows) {
        for (float& each : x) each = random_float();
        for (int r = 1; r < rows; r++)  // no peaks in the first, one more in each that follows, some of them in one unit
            for (int i = 0; i < r; i++) x[(size_t)r * l.k + random_bits() % l.k] *= 50.0f;
        peaks.resize(x.size() / UNIT * PEAKS), ends.resize(rows + 1);
        scales.resize(x.size() / UNIT), counts.resize(x.size() / HALF), codes.resize(x.size());
        sums.resize((size_t)rows * l.sums()), starts.resize(sums.size());
        for (float& each : sums) each = random_float();
        for (int32_t& each : starts) each = (int32_t)(random_bits() % 20000) - 10000;
    }
    int quantize(const Kernels& with, int r, Peak* to) {
        const size_t units = (size_t)r * l.k / UNIT;
        const int found = with.quantize(&x[(size_t)r * l.k], l.k, &codes[(size_t)r * l.k], &scales[units], &counts[2 * units], to);
        for (int i = 0; i < found; i++) to[i].row = r;
        return found;
    }
    std::vector<float> run(const Kernels& with, bool exact, int step) {
        std::vector<float> y((size_t)m * l.n);
        for (int r = 0; r < m; r++) ends[r + 1] = ends[r] + quantize(with, r, &peaks[ends[r]]);
        const Activations narrow = {codes.data(), scales.data(), counts.data(), peaks.data(), ends.data(), 0};
        const Product p = {l, bytes.data(), x.data(), l.k, narrow, sums.data(),
                           l.kind == SUPER_CENTERED ? starts.data() : nullptr, y.data(), l.n, nullptr};
        for (int r = 0; r < m; r += step) (exact ? with.exact : with.product)(p, 0, l.panels(), r, r + step < m ? r + step : m);
        return y;
    }
};

int wrong = 0;

void compare(const Kernels& with, const Layout& l) {
    Case c(l, 19);
    for (const bool exact : {false, true}) {
        if (!exact && !l.whole()) continue;
        const std::vector<float> expected = c.run(portable, exact, 19), found = c.run(with, exact, 19);
        bool same = !std::memcmp(found.data(), expected.data(), found.size() * sizeof(float));
        if (exact) {
            float most = 0, far = 0;
            for (size_t i = 0; i < found.size(); i++)
                most = std::fmax(most, std::fabs(expected[i])), far = std::fmax(far, std::fabs(found[i] - expected[i]));
            same = far <= 1e-5f * most;
        }
        for (const int step : {1, 2, 7, 8, 9}) {
            const std::vector<float> parts = c.run(with, exact, step);
            same &= !std::memcmp(parts.data(), found.data(), found.size() * sizeof(float));
        }
        if (same) continue;
        std::printf("%s differs: kind %d, %d bits, groups of %d, numbers %d, exact %d\n", with.name, l.kind, l.bits, l.group, l.number, exact);
        wrong++;
    }
}

}  // namespace

int main() {
    for (const Kernels* const* each = runnable(); *each; each++) {
        for (const Number number : {FLOAT32, FLOAT16, BFLOAT16}) {
            for (const int bits : {2, 3, 4, 5, 6, 8})
                for (const int group : {32, 64, 128})
                    for (const Kind kind : {AFFINE, CENTERED}) compare(**each, {83, 256, kind, bits, group, number});
            compare(**each, {83, 256, DENSE, number == FLOAT32 ? 32 : 16, UNIT, number});
        }
        for (const int bits : {4, 5}) compare(**each, {83, 512, SUPER_AFFINE, bits, SUPER, FLOAT16});
        for (const int bits : {3, 6}) compare(**each, {83, 512, SUPER_CENTERED, bits, SUPER, FLOAT16});
        compare(**each, {83, 512, SUPER_HALVES, 2, SUPER, FLOAT16});
        compare(**each, {83, 256, FP4_KIND, 4, 32, E8M0});
        compare(**each, {83, 256, FP4_KIND, 4, 16, E4M3});
        compare(**each, {83, 256, FP8_KIND, 8, 32, E8M0});
        std::printf("%s: checked\n", (*each)->name);
    }
    return wrong != 0;
}

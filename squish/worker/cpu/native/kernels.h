// What the kernels of every instruction set have in common: how weights lie in memory, and one table of functions.
// This file knows nothing of MLX, so kernels compile in a second and run in a test without Python.
//
// A matrix of n rows and k columns is stored in panels of PANEL rows (the last is filled up with zeros). A panel is a
// sequence of groups, a group is [PANEL scales][PANEL biases][units of UNIT columns]; so it is read in order, once.
// A unit holds its codes in planes of 8, 4, 2 or 1 bits (6 bits: a plane of 4 and one of 2). A plane is vectors of
// PANEL · 4 bytes: byte (row · 4 + i) of a vector has the field of column 4 · step + i, where step counts first the
// vector's shifts and then the vectors. Lanes are rows of W: no sum runs across lanes, and each output is one chain of
// the same operations in the same order for every batch, tile and thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace squish {

constexpr int PANEL = 16;
constexpr int UNIT = 32;
constexpr int STEPS = 8;  // of 4 columns in a unit

enum Scale : int { FLOAT32, FLOAT16, BFLOAT16 };

// Weights are code · scale + bias.
struct Layout {
    int n, k, bits, group;
    Scale scale;

    int64_t panels() const { return (n + PANEL - 1) / PANEL; }
    int64_t groups() const { return k / group; }
    int64_t scale_bytes() const { return scale == FLOAT32 ? 4 : 2; }
    int64_t unit_bytes() const { return (int64_t)PANEL * UNIT * bits / 8; }
    int64_t group_bytes() const { return 2 * PANEL * scale_bytes() + group / UNIT * unit_bytes(); }
    int64_t panel_bytes() const { return groups() * group_bytes(); }
    int64_t bytes() const { return panels() * panel_bytes(); }
};

// Rows of x as numbers of 8 bits: x ≈ codes · scales. sums: of what the codes stand for, one for each unit.
struct Activations {
    int8_t* codes;    // (m, k)
    float* scales;    // (m, k / UNIT)
    int32_t* counts;  // (m, k / UNIT): sums of codes
    float* sums;      // (m, k / UNIT): counts · scales
};

struct Product {
    Layout layout;
    const uint8_t* weights;
    Activations x;
    const float* sums;  // (m, k / group)
    float* y;           // (m, n), rows `stride` apart
    int64_t stride;
};

struct Kernels {
    const char* name;
    // One row of x, k numbers.
    void (*quantize)(const float* x, int k, int8_t* codes, float* scales, int32_t* counts, float* sums);
    // y for these panels and rows of x.
    void (*product)(const Product&, int64_t first_panel, int64_t last_panel, int first_row, int last_row);
};

// Those this processor can run, the fastest first; nullptr ends them.
const Kernels* const* runnable();
extern const Kernels portable;
#if defined(__x86_64__)
extern const Kernels avx2, avxvnni, avx512, avx512vnni;
#elif defined(__aarch64__)
extern const Kernels neon, dotprod, i8mm;
#endif

}  // namespace squish

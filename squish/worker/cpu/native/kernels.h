// What the kernels of every instruction set have in common: how weights lie in memory, and one table of functions.
// This file knows nothing of MLX, so kernels compile in a second and run in a test without Python.
//
// A matrix of n rows and k columns is stored in panels of PANEL rows (the last is filled up with zeros). A panel is a
// sequence of groups, a group is [PANEL scales][PANEL biases][pieces of up to UNIT columns]; so it is read in order,
// once. A piece holds its codes in planes of 8, 4, 2 or 1 bits (6 bits: a plane of 4 and one of 2). A plane is vectors
// of PANEL · 4 bytes: byte (row · 4 + i) of a vector has the field of column 4 · step + i, where step counts first the
// vector's shifts and then the vectors. A piece of unquantized weights is UNIT columns of PANEL numbers.
//
// GGUF's K-quants have scales of scales. There a group is SUPER columns, [PANEL scales][PANEL scales of minima, where there
// are minima][pieces], and a piece begins with two bytes for each row; see `Kind`.
//
// Lanes are rows of W: no sum runs across lanes, and each output is one chain of the same operations in the same order
// for every batch, tile and thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace squish {

// Files are compiled for different processors: a function that they share must leave no copy of its own behind.
#define SQUISH_HEADER __attribute__((always_inline)) inline

constexpr int PANEL = 16;
constexpr int UNIT = 32;
constexpr int HALF = UNIT / 2;
constexpr int SUPER = 256;
constexpr int PEAKS = 2;

// AFFINE: code · scale + bias. DENSE: numbers as they are. FP4, FP8: small floats times a scale. CENTERED: affine where each
// bias is the scale times minus half of the codes, as in GGUF's Q4_0, Q5_0 and Q8_0, and so is not stored.
// SUPER_AFFINE (Q4_K, Q5_K): code · scale · (byte 0) - minimum · (byte 1). Those with a byte for each half of a piece:
// SUPER_HALVES (Q2_K): code · scale · (low 4 bits) - minimum · (high 4 bits); SUPER_CENTERED (Q3_K, Q6_K): the code less half
// of the codes, times scale · (byte - 128).
enum Kind : int { AFFINE, DENSE, FP4_KIND, FP8_KIND, CENTERED, SUPER_AFFINE, SUPER_HALVES, SUPER_CENTERED };
// How scales (with DENSE: the weights) are stored.
enum Number : int { FLOAT32, FLOAT16, BFLOAT16, E8M0, E4M3 };

// bits: of a code. group: columns that share a scale; UNIT where none is.
struct Layout {
    int n, k;
    Kind kind;
    int bits, group;
    Number number;

    SQUISH_HEADER int64_t panels() const { return (n + PANEL - 1) / PANEL; }
    SQUISH_HEADER int64_t groups() const { return (k + group - 1) / group; }
    SQUISH_HEADER int piece() const { return group < UNIT ? group : UNIT; }  // columns
    SQUISH_HEADER int64_t number_bytes() const { return number == FLOAT32 ? 4 : number >= E8M0 ? 1 : 2; }
    SQUISH_HEADER bool super() const { return kind >= SUPER_AFFINE; }
    SQUISH_HEADER bool biased() const { return kind == AFFINE || kind == SUPER_AFFINE || kind == SUPER_HALVES; }
    SQUISH_HEADER int64_t scales_bytes() const { return kind == DENSE ? 0 : (biased() ? 2 : 1) * PANEL * number_bytes(); }
    SQUISH_HEADER int64_t small_bytes() const { return super() ? 2 * PANEL : 0; }  // of a piece, before its codes
    SQUISH_HEADER int64_t piece_bytes() const { return small_bytes() + (int64_t)PANEL * piece() * bits / 8; }
    SQUISH_HEADER int64_t group_bytes() const { return scales_bytes() + group / piece() * piece_bytes(); }
    SQUISH_HEADER int64_t panel_bytes() const { return groups() * group_bytes(); }
    SQUISH_HEADER int64_t bytes() const { return panels() * panel_bytes(); }
    // Whether products with activations of 8 bits exist: for codes that are whole numbers.
    SQUISH_HEADER bool whole() const { return kind != DENSE && kind != FP8_KIND; }
    // Where it is centered: what scales are multiplied by to be biases.
    SQUISH_HEADER float center() const { return (float)-(1 << (bits - 1)); }
    // Columns that have one of `Product::sums`, or of `starts`.
    SQUISH_HEADER int sum_columns() const {
        return kind == SUPER_HALVES || kind == SUPER_CENTERED ? HALF : kind == SUPER_AFFINE ? UNIT : group;
    }
    SQUISH_HEADER int64_t sums() const { return k / sum_columns(); }
};

// Four columns of x with a number that sticks out of its row. They have two codes each: one like the others, and one here
// that counts 128 times as much, so that the scale of their unit is that of its other columns.
struct Peak {
    int32_t row, step;  // step: column / 4
    float scale;        // 128 · that of the unit
    int32_t count;      // sum of codes
    int8_t codes[4];
};

// Rows of x as numbers of 8 bits: x ≈ codes · scales, and what peaks add.
struct Activations {
    int8_t* codes;    // (m, k)
    float* scales;    // (m, k / UNIT)
    int32_t* counts;  // (m, k / HALF): sums of codes
    Peak* peaks;      // of all rows, in the order of rows and columns
    int64_t* ends;    // (m + 1), of each row in `peaks`: the first is where the first row begins
    int32_t row;      // `Peak::row` of the first row
};

// y = x · Wᵀ + added. Exact products read `rows`, others `x` and `sums`.
struct Product {
    Layout layout;
    const uint8_t* weights;
    const float* rows;  // (m, k, rounded up to UNIT), `row_stride` apart
    int64_t row_stride;
    Activations x;
    const float* sums;      // (m, layout.sums()): of what the codes stand for; not with SUPER_CENTERED
    const int32_t* starts;  // the same shape, with SUPER_CENTERED only: sums of codes times the center
    float* y;           // (m, n), rows `y_stride` apart
    int64_t y_stride;
    const float* added;  // (n), or nullptr
};

struct Kernels {
    const char* name;
    // One row of x, k numbers; what is chosen depends on this row alone. Peaks, k / UNIT · PEAKS at most, come to `peaks`, and
    // their number comes back.
    int (*quantize)(const float* x, int k, int8_t* codes, float* scales, int32_t* counts, Peak* peaks);
    // y for these panels and rows of x, from activations of 8 bits or in float32.
    void (*product)(const Product&, int64_t first_panel, int64_t last_panel, int first_row, int last_row);
    void (*exact)(const Product&, int64_t first_panel, int64_t last_panel, int first_row, int last_row);
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

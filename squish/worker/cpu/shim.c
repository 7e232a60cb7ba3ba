/* cblas_sgemm for MLX: few rows (decode) run here, everything else goes to the OpenBLAS inside the numpy wheel. W is a matrix
 * of float32, or what packed.py puts in its place: quantized weights behind a header, which are read as they are.
 *
 * MLX asks for x · Wᵀ with W as stored, one row of x per sequence. OpenBLAS repacks W at every such call and so reads it at
 * 4 GB/s; read once and in order, it comes at the speed of memory. Up to LANES rows of x cost the same as two.
 * A second thread is woken only for work that takes longer than the waking (some 40 µs).
 * OpenMP threads take chunks of W as they get time, so a busy core slows a product and does not stall it. THREADS (many rows:
 * bound by arithmetic) and ROW_THREADS (one row: bound by memory) come from the compiler's command line.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };
enum { LANES = 8, TILE = 8, FEW_ROWS = 2 * LANES, CHUNK = 64, WORTH_THREADS = 1 << 18, PACKED_WORTH_THREADS = 1 << 20 };
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef float unaligned __attribute__((vector_size(4 * LANES), aligned(4)));
#define UNROLL _Pragma("GCC unroll 8")

void scipy_cblas_sgemm64_(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t,
                          float, float *, int64_t);

static float dot(int64_t k, const float *x, const float *w) {
    lanes s[4] = {{0}};
    int64_t p = 0;
    for (; p + 4 * LANES <= k; p += 4 * LANES)
        for (int u = 0; u < 4; u++)
            s[u] += *(const unaligned *)(x + p + u * LANES) * *(const unaligned *)(w + p + u * LANES);
    s[0] += s[1] + s[2] + s[3];
    float sum = 0;
    for (int l = 0; l < LANES; l++) sum += s[0][l];
    for (; p < k; p++) sum += x[p] * w[p];
    return sum;
}

static void store(float *c, float value, float beta) { *c = beta == 0 ? value : value + beta * *c; }

/* `rows` rows of W against `groups` · LANES rows of x, which lie side by side in `x`: one vector per column of W. */
static inline __attribute__((always_inline)) void tile(const int groups, const int rows, int64_t m, int64_t k, float alpha, const lanes *x, const float *w,
                 int64_t ldw, float beta, float *c, int64_t ldc) {
    lanes s[TILE][2] = {{{0}}};
    for (int64_t p = 0; p < k; p++)
        UNROLL for (int j = 0; j < rows; j++)
            UNROLL for (int g = 0; g < groups; g++) s[j][g] += x[p * groups + g] * w[j * ldw + p];
    for (int j = 0; j < rows; j++)
        for (int64_t i = 0; i < m; i++) store(c + i * ldc + j, alpha * s[j][i / LANES][i % LANES], beta);
}

static inline __attribute__((always_inline)) void chunk(const int groups, int64_t n, int64_t m, int64_t k, float alpha, const lanes *x, const float *w, int64_t ldw,
                  float beta, float *c, int64_t ldc) {
    int64_t j = 0;
    const int rows = TILE / groups;
    for (; j + rows <= n; j += rows) tile(groups, rows, m, k, alpha, x, w + j * ldw, ldw, beta, c + j, ldc);
    for (; j < n; j++) tile(groups, 1, m, k, alpha, x, w + j * ldw, ldw, beta, c + j, ldc);
}

static lanes *side_by_side(int64_t width, int64_t m, int64_t k, const float *a, int64_t lda) {
    float *x = aligned_alloc(sizeof(lanes), sizeof(float) * width * k);
    for (int64_t p = 0; x && p < k; p++)
        for (int64_t i = 0; i < width; i++) x[p * width + i] = i < m ? a[i * lda + p] : 0;
    return (lanes *)x;
}

/* A quantized matrix: weight p of row j is code[j, p] · scale[j, p / group] + bias[j, p / group]. Behind the header lie the codes of
 * `bits` bits (of 4: the even one in the low half of a byte), then all scales, then all biases, as MLX has them. */
typedef struct { uint32_t magic[4]; int32_t n, k, bits, group, unused[8]; } Packed;
/* The start of every packed matrix: 128 random bits that packed.py draws anew in each process, so that no file can hold them.
 * Until then no matrix is taken for a packed one. */
uint32_t squish_packed_secret[4] = {0};
int squish_packed_ready = 0;
enum { UNIT = 32, DOTS = 4, TALL = 2, SCRATCH = 1 << 20 };
#ifdef __AVX512F__
enum { MOST_DOTS = 8 }; /* as many sums as there are registers for */
#else
enum { MOST_DOTS = DOTS };
#endif
typedef int32_t ints __attribute__((vector_size(64)));
typedef float floats __attribute__((vector_size(64)));
typedef float loose __attribute__((vector_size(64), aligned(4)));

static const Packed *as_packed(const float *b, int n, int k) {
    if ((int64_t)n * k * (int64_t)sizeof(float) < (int64_t)sizeof(Packed) || !squish_packed_ready ||
        memcmp(b, squish_packed_secret, sizeof squish_packed_secret))
        return NULL;
    const Packed *w = (const Packed *)b;
    return w->n == n && w->k == k && (w->bits == 4 || w->bits == 8) && w->group > 0 && k % w->group == 0 ? w : NULL;
}

static const uint8_t *codes_of(const Packed *w, int64_t j) { return (const uint8_t *)(w + 1) + j * (w->k / 8 * w->bits); }
static const float *scales_of(const Packed *w, int64_t j) { return (const float *)codes_of(w, w->n) + j * (w->k / w->group); }
static const float *biases_of(const Packed *w, int64_t j) { return scales_of(w, w->n + j); }

/* 16 codes as numbers. Written as a loop, because GCC takes a vector of bytes that comes from memory apart. */
static inline floats widen(const uint8_t *c, int shift, int mask) {
    ints v;
    for (int l = 0; l < 16; l++) v[l] = c[l] >> shift & mask;
    return __builtin_convertvector(v, floats);
}

static void unpack(const Packed *w, int64_t j, float *out) {
    const uint8_t *c = codes_of(w, j);
    const float *scales = scales_of(w, j), *biases = biases_of(w, j);
    for (int p = 0; p < w->k; p += w->group) {
        float s = *scales++, b = *biases++;
        if (w->bits == 8)
            for (int i = 0; i < w->group; i++) out[p + i] = *c++ * s + b;
        else
            for (int i = 0; i < w->group; i += 2, c++) out[p + i] = (*c & 15) * s + b, out[p + i + 1] = (*c >> 4) * s + b;
    }
}

/* Rows of x as `dots` reads them: of every UNIT of 4-bit weights the even come first. */
static float *for_dots(const Packed *w, int m, const float *x, int ldx) {
    float *all = malloc(sizeof(float) * m * w->k);
    for (float *out = all; all && m--; x += ldx, out += w->k)
        for (int p = 0; p < w->k; p += UNIT)
            for (int i = 0; i < UNIT; i++) out[p + (w->bits == 8 ? i : i / 2 + i % 2 * UNIT / 2)] = x[p + i];
    return all;
}

/* c[r, j] for `tall` rows of W from row j on and `rows` rows of x, straight from the codes. */
static inline __attribute__((always_inline)) void dots(const int bits, const int tall, const int rows, const Packed *w, int64_t j,
                                                       const float *x, float alpha, float beta, float *c, int ldc) {
    const int k = w->k, stride = k / 8 * bits;
    const uint8_t *code = codes_of(w, j);
    const float *scales = scales_of(w, j), *biases = biases_of(w, j);
    floats all[TALL][MOST_DOTS] = {{{0}}};
    for (int g = 0, p = 0; p < k; g++)
        for (int end = p + w->group; p < end; p += UNIT, code += UNIT / 8 * bits) {
            floats low[TALL], high[TALL];
            UNROLL for (int t = 0; t < tall; t++) {
                const uint8_t *from = code + t * stride;
                float s = scales[g + t * (k / w->group)], b = biases[g + t * (k / w->group)];
                low[t] = widen(from, 0, bits == 8 ? 255 : 15) * s + b;
                high[t] = (bits == 8 ? widen(from + UNIT / 2, 0, 255) : widen(from, 4, 15)) * s + b;
            }
            UNROLL for (int r = 0; r < rows; r++) {
                floats first = *(const loose *)(x + r * k + p), second = *(const loose *)(x + r * k + p + UNIT / 2);
                UNROLL for (int t = 0; t < tall; t++) all[t][r] += low[t] * first + high[t] * second;
            }
        }
    for (int t = 0; t < tall; t++)
        for (int r = 0; r < rows; r++) {
            float sum = 0;
            for (int l = 0; l < 16; l++) sum += all[t][r][l];
            store(c + (int64_t)r * ldc + j + t, alpha * sum, beta);
        }
}

/* `some` rows of W from row j on against all m of x. */
static inline __attribute__((always_inline)) void few_dots(const int bits, const Packed *w, int64_t j, int some, int m, const float *x,
                                                           float alpha, float beta, float *c, int ldc) {
    for (int64_t end = j + some; j < end; ) {
        int tall = end - j < TALL ? 1 : TALL, i = 0;
        for (; MOST_DOTS > DOTS && tall == TALL && i + MOST_DOTS <= m; i += MOST_DOTS)
            dots(bits, TALL, MOST_DOTS, w, j, x + (int64_t)i * w->k, alpha, beta, c + (int64_t)i * ldc, ldc);
        for (; i + DOTS <= m; i += DOTS)
            if (tall == TALL) dots(bits, TALL, DOTS, w, j, x + (int64_t)i * w->k, alpha, beta, c + (int64_t)i * ldc, ldc);
            else dots(bits, 1, DOTS, w, j, x + (int64_t)i * w->k, alpha, beta, c + (int64_t)i * ldc, ldc);
        for (; i < m; i++)
            if (tall == TALL) dots(bits, TALL, 1, w, j, x + (int64_t)i * w->k, alpha, beta, c + (int64_t)i * ldc, ldc);
            else dots(bits, 1, 1, w, j, x + (int64_t)i * w->k, alpha, beta, c + (int64_t)i * ldc, ldc);
        j += tall;
    }
}

static float *scratch(int64_t rows, int64_t k) {
    float *memory = aligned_alloc(64, (sizeof(float) * rows * k + 63) / 64 * 64);
    if (!memory) abort();
    return memory;
}

/* c = alpha · x · Wᵀ + beta · c, W packed. Few rows of x: dot products with the codes. Many: parts of W are unpacked for OpenBLAS. */
static void packed_product(const Packed *w, int m, float alpha, const float *a, int lda, float beta, float *c, int ldc) {
    int n = w->n, k = w->k, step = CHUNK;
    float *x = m <= FEW_ROWS ? for_dots(w, m, a, lda) : NULL;
    if (!x) {
        int most = SCRATCH / k, share = n / (4 * THREADS);
        step = share < most ? share : most;
        if (step < TILE) step = TILE;
    }
#pragma omp parallel num_threads(THREADS) if ((int64_t)m * n * k > PACKED_WORTH_THREADS)
    {
        float *rows = x ? NULL : scratch(step, k);
#pragma omp for schedule(dynamic)
        for (int j = 0; j < n; j += step) {
            int some = n - j < step ? n - j : step;
            if (x && w->bits == 8) few_dots(8, w, j, some, m, x, alpha, beta, c, ldc);
            else if (x) few_dots(4, w, j, some, m, x, alpha, beta, c, ldc);
            for (int i = 0; !x && i < some; i++) unpack(w, j + i, rows + (int64_t)i * k);
            if (!x) scipy_cblas_sgemm64_(ROW_MAJOR, NO_TRANS, TRANS, m, some, k, alpha, a, lda, rows, k, beta, c + j, ldc);
        }
        free(rows);
    }
    free(x);
}

/* Many rows: columns of C in chunks, each a single-threaded OpenBLAS call. OpenBLAS's own threads spin at a barrier, and stall
 * together when one of them loses its core; these take the next chunk when they get time. */
static void many_rows(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
                      int ldb, float beta, float *c, int ldc) {
    int size = (n / (4 * THREADS) + 15) / 16 * 16;
    if (order != ROW_MAJOR || size < 16 || (int64_t)m * n * k < WORTH_THREADS * 4) size = n;
#pragma omp parallel for schedule(dynamic) num_threads(THREADS) if (size < n)
    for (int j = 0; j < n; j += size) {
        const float *part = b + (tb == NO_TRANS ? j : (int64_t)j * ldb);
        int some = n - j < size ? n - j : size;
        scipy_cblas_sgemm64_(order, ta, tb, m, some, k, alpha, a, lda, part, ldb, beta, c + j, ldc);
    }
}

void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                 float beta, float *c, int ldc) {
    const Packed *packed = order == ROW_MAJOR && tb == TRANS && ldb == k ? as_packed(b, n, k) : NULL;
    if (packed) {
        float *straight = ta == NO_TRANS ? NULL : scratch(m, k);
        for (int64_t i = 0; straight && i < (int64_t)m * k; i++) straight[i] = a[i % k * lda + i / k];
        packed_product(packed, m, alpha, straight ? straight : a, straight ? k : lda, beta, c, ldc);
        free(straight);
        return;
    }
    int few = order == ROW_MAJOR && ta == NO_TRANS && tb == TRANS && m > 0 && m <= FEW_ROWS && k > 0;
    int groups = m <= LANES ? 1 : 2;
    lanes *x = few && m > 1 ? side_by_side(groups * LANES, m, k, a, lda) : NULL;
    if (!few || (m > 1 && !x)) {
        many_rows(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        return;
    }
#pragma omp parallel for schedule(dynamic) num_threads(m == 1 ? ROW_THREADS : THREADS) if ((int64_t)n * k > WORTH_THREADS)
    for (int j = 0; j < n; j += CHUNK) {
        int some = n - j < CHUNK ? n - j : CHUNK;
        const float *w = b + (int64_t)j * ldb;
        if (m == 1)
            for (int i = 0; i < some; i++) store(c + j + i, alpha * dot(k, a, w + (int64_t)i * ldb), beta);
        else if (groups == 1)
            chunk(1, some, m, k, alpha, x, w, ldb, beta, c + j, ldc);
        else
            chunk(2, some, m, k, alpha, x, w, ldb, beta, c + j, ldc);
    }
    free(x);
}

/* cblas_sgemm for MLX: few rows (decode) run here, everything else goes to the OpenBLAS inside the numpy wheel.
 *
 * MLX asks for x · Wᵀ with W as stored, one row of x per sequence. OpenBLAS repacks W at every such call and so reads it at
 * 4 GB/s; read once and in order, it comes at the speed of memory. Up to LANES rows of x cost the same as two.
 * A second thread is woken only for work that takes longer than the waking (some 40 µs).
 * OpenMP threads take chunks of W as they get time, so a busy core slows a product and does not stall it. THREADS (many rows:
 * bound by arithmetic) and ROW_THREADS (one row: bound by memory) come from the compiler's command line.
 */
#include <stdint.h>
#include <stdlib.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };
enum { LANES = 8, TILE = 8, FEW_ROWS = 2 * LANES, CHUNK = 64, WORTH_THREADS = 1 << 18 };
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

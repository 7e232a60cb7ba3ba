// The kernels for AVX-VNNI, which few servers have, on a processor with AVX-512: its instruction for vectors of 256 bits
// computes the same, so `make check-vnni` compiles them with that one. Linked with check_kernels.cpp.
#include "kernels.h"

namespace squish {

const Kernels* const* runnable() {
    static const Kernels* const list[] = {&avxvnni, &portable, nullptr};
    return list;
}

// Those in float32 are the same for both kinds of AVX2; tests/worker/cpu/test_products.py is about them.
void avx2_exact(const Product& p, int64_t first, int64_t last, int row, int end) { portable.exact(p, first, last, row, end); }

}  // namespace squish

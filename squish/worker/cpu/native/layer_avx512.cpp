// The layers' kernels for processors with AVX-512.
#define SQUISH_AVX512
#include "layer_kernels_impl.h"

namespace squish {
extern SQUISH_LAYER_KERNELS(avx512);
}

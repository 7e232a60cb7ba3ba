// The layers' kernels for processors with AVX2.
#define SQUISH_AVX2
#include "layer_kernels_impl.h"

namespace squish {
extern SQUISH_LAYER_KERNELS(avx2);
}

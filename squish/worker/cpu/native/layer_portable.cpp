// The layers' kernels for every processor: the reference on x86-64, and what arm64 uses (vectors.h has NEON's forms).
#include "layer_kernels_impl.h"

namespace squish {
extern SQUISH_LAYER_KERNELS(portable);
}

// Kernels for whatever the compiler targets: NEON on 64-bit ARM, SSE2 on x86-64.

#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace nextword {
namespace portable {

#include "kernels_portable.inc"

}  // namespace portable

extern const Kernels kPortableKernels;
const Kernels kPortableKernels = {"portable", portable::Packed, portable::Float<float>,
                                  portable::Float<BFloat16>};

}  // namespace nextword

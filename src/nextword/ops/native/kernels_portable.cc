// Kernels for whatever the compiler targets: NEON on 64-bit ARM, SSE2 on x86-64.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels.h"

namespace nextword {
namespace portable {

constexpr int kLanes = 4;
#include "kernels_portable.inc"
#include "step_math.inc"

}  // namespace portable

extern const Kernels kPortableKernels;
const Kernels kPortableKernels = {
    "portable",
    portable::Quantize,
    portable::Packed,
    portable::Float<float>,
    portable::Float<BFloat16>,
    portable::Float<int8_t>,
    portable::Attend<float>,
    portable::Attend<BFloat16>,
    portable::Activate,
    portable::Normalize,
};

}  // namespace nextword

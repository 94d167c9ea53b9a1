#include "kernels.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

namespace nextword {

extern const Kernels kPortableKernels;
#if defined(__x86_64__) && defined(__GNUC__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

namespace {

// From the best to the one that every processor runs.
std::vector<const Kernels*> UsableKernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) {
    usable.push_back(&kAvx512Kernels);
  }
  if (has_avx2) usable.push_back(&kAvx2Kernels);
#endif
  usable.push_back(&kPortableKernels);
  return usable;
}

std::atomic<const Kernels*>& Current() {
  static std::atomic<const Kernels*> current{UsableKernels().front()};
  return current;
}

}  // namespace

const Kernels& CurrentKernels() { return *Current().load(std::memory_order_relaxed); }

bool UseKernels(const char* name) {
  for (const Kernels* kernels : UsableKernels()) {
    if (std::strcmp(kernels->name, name) == 0) {
      Current().store(kernels, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

void MultiplyInt8(const Int8Matrix& weights, const float* in, int64_t num_rows, int64_t first,
                  int64_t last, float* out, int64_t stride) {
  CurrentKernels().int8(weights.codes, weights.inputs, in, num_rows, first, last, out, stride);
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t o = first; o < last; ++o) out[row * stride + o] /= weights.scales[o];
  }
}

QuantizedRows::QuantizedRows(int64_t num_rows, int64_t inputs)
    : inputs_(inputs),
      codes_(num_rows * inputs),
      halves_(2 * num_rows * inputs),
      factors_(2 * num_rows * (inputs / kGroup)) {
  const int64_t groups = inputs / kGroup;
  for (int64_t row = 0; row < num_rows; row += kBlockRows) {
    const int64_t rows = std::min(num_rows - row, kBlockRows);
    float* scales = factors_.data() + 2 * row * groups;
    blocks_.push_back({rows, codes_.data() + row * inputs, halves_.data() + 2 * row * inputs,
                       scales, scales + rows * groups});
  }
}

void QuantizedRows::Quantize(int64_t row, const float* activations) {
  const QuantizedBlock& block = blocks_[row / kBlockRows];
  CurrentKernels().quantize(activations, inputs_, block, row % kBlockRows);
}

}  // namespace nextword

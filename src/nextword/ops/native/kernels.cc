#include "kernels.h"

#include <atomic>
#include <cmath>
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

QuantizedRows::QuantizedRows(int64_t num_rows, int64_t inputs)
    : inputs_(inputs),
      codes_(num_rows * inputs),
      halves_(2 * num_rows * inputs),
      factors_(2 * num_rows * (inputs / kGroup)),
      rows_(num_rows) {
  const int64_t groups = inputs / kGroup;
  for (int64_t row = 0; row < num_rows; ++row) {
    const int8_t* high = halves_.data() + 2 * row * inputs;
    const float* scales = factors_.data() + 2 * row * groups;
    rows_[row] = {codes_.data() + row * inputs, high, high + inputs, scales, scales + groups};
  }
}

void QuantizedRows::Quantize(int64_t row, const float* activations) {
  constexpr float kLargest = 127 * 128;
  // Adding it and taking it away rounds to the nearest integer, and vectorises.
  constexpr float kRound = 1.5f * (1 << 23);
  const int64_t groups = inputs_ / kGroup;
  int16_t* codes = codes_.data() + row * inputs_;
  int8_t* high = halves_.data() + 2 * row * inputs_;
  int8_t* low = high + inputs_;
  float* scales = factors_.data() + 2 * row * groups;
  float* sums = scales + groups;
  for (int64_t g = 0; g < groups; ++g) {
    const float* group = activations + g * kGroup;
    float largest = 0;
    for (int i = 0; i < kGroup; ++i) largest = std::fmax(largest, std::fabs(group[i]));
    const float inverse = largest > 0 ? kLargest / largest : 0;
    int32_t sum = 0;
    for (int i = 0; i < kGroup; ++i) {
      const int32_t code = static_cast<int32_t>((group[i] * inverse + kRound) - kRound);
      const int32_t upper = (code + 64) >> 7;
      codes[g * kGroup + i] = static_cast<int16_t>(code);
      high[g * kGroup + i] = static_cast<int8_t>(upper);
      low[g * kGroup + i] = static_cast<int8_t>(code - 128 * upper);
      sum += code;
    }
    scales[g] = largest / kLargest;
    sums[g] = scales[g] * static_cast<float>(sum);
  }
}

}  // namespace nextword

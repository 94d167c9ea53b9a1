#include "products.h"

#include <utility>

#include "kernels.h"
#include "parallel.h"

namespace nextword {
namespace {

// Parts are as small as pays for handing them out, and no smaller.
constexpr int64_t kMultiplicationsPerPart = 1 << 16;

// Calls `part(first, last)` for ranges of `count` items of `cost` multiplications each.
template <typename Part>
void Parallel(const Threads& threads, int64_t count, int64_t cost, const Part& part) {
  const int64_t smallest = kMultiplicationsPerPart / (cost > 0 ? cost : 1) + 1;
  const Ranges ranges(count, threads.count, smallest);
  ParallelFor(ranges, threads.count - 1, threads.schedule, part);
}

// Returns whether outputs = inputs @ weights.T has these shapes.
bool IsProduct(const Array& inputs, const Array& weights, const Array& outputs) {
  return inputs.Is(Array::kFloat32, 2) && outputs.Is(Array::kFloat32, 2) && weights.rank == 2 &&
         weights.shape[1] == inputs.shape[1] && outputs.shape[0] == inputs.shape[0] &&
         outputs.shape[1] == weights.shape[0];
}

template <typename Weight>
void Multiply(FloatKernel<Weight> kernel, const Array& inputs, const Array& weights,
              const Array& outputs, const Threads& threads) {
  const int64_t rows = inputs.shape[0], width = inputs.shape[1], results = weights.shape[0];
  Parallel(threads, results, width * rows, [&](int64_t first, int64_t last) {
    kernel(weights.as<Weight>(), width, inputs.as<float>(), rows, first, last, outputs.as<float>(),
           results);
  });
}

}  // namespace

std::string FloatLinear(const Array& inputs, const Array& weights, const Array& outputs,
                        const Threads& threads) {
  const bool is_float32 = weights.type == Array::kFloat32;
  if (!IsProduct(inputs, weights, outputs) || !(is_float32 || weights.type == Array::kBFloat16)) {
    return "The shapes or types of activations, weights and outputs do not fit.";
  }
  if (is_float32) {
    Multiply(CurrentKernels().float32, inputs, weights, outputs, threads);
  } else {
    Multiply(CurrentKernels().bfloat16, inputs, weights, outputs, threads);
  }
  return "";
}

std::string Int8Linear(const Array& inputs, const Array& codes, const Array& scales,
                       const Array& outputs, const Threads& threads) {
  if (!IsProduct(inputs, codes, outputs) || codes.type != Array::kInt8 ||
      !scales.Is(Array::kFloat32, 1) || scales.shape[0] != codes.shape[0]) {
    return "The shapes or types of activations, int8 weights, scales and outputs do not fit.";
  }
  const int64_t rows = inputs.shape[0], width = inputs.shape[1], results = codes.shape[0];
  const Int8Matrix weights{codes.as<int8_t>(), scales.as<float>(), width};
  Parallel(threads, results, width * rows, [&](int64_t first, int64_t last) {
    MultiplyInt8(weights, inputs.as<float>(), rows, first, last, outputs.as<float>(), results);
  });
  return "";
}

std::string PackedLinear(const Array& inputs, const Array& codes, const Array& scales,
                         const Array& minimums, const Array& outputs, int64_t bits,
                         int64_t zero_point, const Threads& threads) {
  if (!inputs.Is(Array::kFloat32, 2) || !codes.Is(Array::kUint8, 3) || (bits != 4 && bits != 8) ||
      codes.shape[1] * kGroup != inputs.shape[1] || codes.shape[2] != kTile * kGroup * bits / 8) {
    return "The shapes or types of activations and packed weights do not fit.";
  }
  const int64_t rows = inputs.shape[0], width = inputs.shape[1], tiles = codes.shape[0];
  const int64_t parameters = tiles * codes.shape[1] * kTile;
  const bool has_minimums = minimums.elements() != 0;
  if (!scales.Is(Array::kFloat16, 3) || scales.elements() != parameters ||
      minimums.type != Array::kFloat16 || (has_minimums && minimums.elements() != parameters) ||
      !outputs.Is(Array::kFloat32, 2) || outputs.elements() != rows * tiles * kTile) {
    return "The shapes or types of packed weights and outputs do not fit.";
  }
  const PackedMatrix weights{codes.as<uint8_t>(),
                             scales.as<uint16_t>(),
                             has_minimums ? minimums.as<uint16_t>() : nullptr,
                             static_cast<int>(bits),
                             static_cast<int>(zero_point),
                             tiles * kTile,
                             width};
  QuantizedRows quantized(rows, width);
  Parallel(threads, rows, 16 * width, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      quantized.Quantize(row, inputs.as<float>() + row * width);
    }
  });
  const PackedKernel kernel = CurrentKernels().packed;
  Parallel(threads, tiles, kTile * width * rows, [&](int64_t first, int64_t last) {
    kernel(weights, quantized, first, last, outputs.as<float>(), tiles * kTile);
  });
  return "";
}

}  // namespace nextword

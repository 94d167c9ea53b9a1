// Products of activations with one matrix, shared by threads.

#ifndef NEXTWORD_PRODUCTS_H_
#define NEXTWORD_PRODUCTS_H_

#include <string>

#include "array.h"

namespace nextword {

// Computes outputs = inputs @ weights.T. Returns what is wrong with the arguments, or nothing.
//
// Args:
//   inputs: float32 [rows, inputs].
//   weights: float32 or bfloat16 [outputs, inputs].
//   outputs: float32 [rows, outputs].
std::string FloatLinear(const Array& inputs, const Array& weights, const Array& outputs,
                        const Threads& threads);

// The same with weights code / scale.
//
// Args:
//   inputs: float32 [rows, inputs].
//   codes: int8 [outputs, inputs].
//   scales: float32 [outputs].
//   outputs: float32 [rows, outputs].
std::string Int8Linear(const Array& inputs, const Array& codes, const Array& scales,
                       const Array& outputs, const Threads& threads);

// The same with packed weights; see PackedMatrix.
//
// Args:
//   inputs: float32 [rows, inputs].
//   codes: uint8 [outputs / kTile, inputs / kGroup, kTile * kGroup * bits / 8].
//   scales: float16 [outputs / kTile, inputs / kGroup, kTile].
//   minimums: like scales, or without elements where there are none.
//   outputs: float32 [rows, outputs].
std::string PackedLinear(const Array& inputs, const Array& codes, const Array& scales,
                         const Array& minimums, const Array& outputs, int64_t bits,
                         int64_t zero_point, const Threads& threads);

}  // namespace nextword

#endif  // NEXTWORD_PRODUCTS_H_

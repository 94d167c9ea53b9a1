// The matrix of an instruction, however it is held.

#ifndef NEXTWORD_STEP_MATRIX_H_
#define NEXTWORD_STEP_MATRIX_H_

#include "kernels.h"
#include "step_operations.h"

namespace nextword {

// A matrix [outputs, inputs] among the operands of a step: its kind, arrays of its values, scales
// and minimums or -1 each, bits and zero point.
class StepMatrix {
 public:
  explicit StepMatrix(Integers& in)
      : kind_(in.Next()), values_at_(in.Next()), scales_at_(in.Next()), minimums_at_(in.Next()),
        bits_(in.Next()), zero_point_(in.Next()) {}

  // Returns whether the operands have the right sizes, and keeps where they lie.
  bool Prepare(Memory& memory, int64_t outputs, int64_t inputs);

  bool is_packed() const { return kind_ == kPacked; }

  // Returns the rows from one on, of packed weights the first of a tile.
  StepMatrix From(int64_t output) const;

  // Writes out[row * stride + output] for some rows of activations and outputs [first, last), of
  // packed weights whole tiles. These take activations `quantized`, all others take `in`.
  void Multiply(const float* in, const QuantizedRows* quantized, int64_t num_rows, int64_t first,
                int64_t last, float* out, int64_t stride) const;

 private:
  enum Kind : int64_t { kFloat32, kBFloat16, kPacked, kInt8 };

  bool PreparePacked(Memory& memory, int64_t outputs);

  int64_t kind_, values_at_, scales_at_, minimums_at_, bits_, zero_point_;
  int64_t inputs_ = 0;
  const void* values_ = nullptr;
  const float* scales_ = nullptr;  // of int8
  PackedMatrix packed_ = {};
};

// One of the products of an instruction: the register of its outputs, their number, the matrix, and
// the array of the bias or -1.
struct Product {
  explicit Product(Integers& in)
      : out(in.Next()), outputs(in.Next()), matrix(in), bias_at(in.Next()) {}

  int64_t tiles() const { return (outputs + kTile - 1) / kTile; }

  // Returns the range of the outputs that are in tiles [first, last) of all the products.
  std::pair<int64_t, int64_t> OutputsIn(int64_t first, int64_t last) const {
    return {std::max<int64_t>((first - first_tile) * kTile, 0),
            std::min((last - first_tile) * kTile, outputs)};
  }

  int64_t out, outputs;
  StepMatrix matrix;
  int64_t bias_at;
  int64_t first_tile = 0;
  const float* bias = nullptr;
};

}  // namespace nextword

#endif  // NEXTWORD_STEP_MATRIX_H_

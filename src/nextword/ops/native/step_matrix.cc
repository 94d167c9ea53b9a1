#include "step_matrix.h"

namespace nextword {

bool StepMatrix::Prepare(Memory& memory, int64_t outputs, int64_t inputs) {
  inputs_ = inputs;
  if (kind_ == kPacked) return PreparePacked(memory, outputs);
  const Array::Type type = kind_ == kFloat32 ? Array::kFloat32
                           : kind_ == kInt8  ? Array::kInt8
                                             : Array::kBFloat16;
  if (!memory.IsArray(values_at_, outputs * inputs, type)) return false;
  values_ = memory.operand(values_at_).data;
  if (kind_ != kInt8) return true;
  if (!memory.IsArray(scales_at_, outputs, Array::kFloat32)) return false;
  scales_ = memory.Floats(scales_at_);
  return true;
}

bool StepMatrix::PreparePacked(Memory& memory, int64_t outputs) {
  if (inputs_ % kGroup || outputs % kTile || (bits_ != 4 && bits_ != 8)) return false;
  const int64_t parameters = outputs * inputs_ / kGroup;
  const bool has_minimums = minimums_at_ != -1;
  if (!memory.IsArray(values_at_, outputs * inputs_ * bits_ / 8, Array::kUint8) ||
      !memory.IsArray(scales_at_, parameters, Array::kFloat16) ||
      (has_minimums && !memory.IsArray(minimums_at_, parameters, Array::kFloat16))) {
    return false;
  }
  const auto data = [&memory](int64_t number) { return memory.operand(number).data; };
  packed_ = {static_cast<const uint8_t*>(data(values_at_)),
             static_cast<const uint16_t*>(data(scales_at_)),
             has_minimums ? static_cast<const uint16_t*>(data(minimums_at_)) : nullptr,
             static_cast<int>(bits_),
             static_cast<int>(zero_point_),
             outputs,
             inputs_};
  return true;
}

StepMatrix StepMatrix::From(int64_t output) const {
  StepMatrix rows = *this;
  const int64_t weights = output * inputs_;
  if (kind_ == kPacked) {
    rows.packed_.codes += weights * bits_ / 8;
    rows.packed_.scales += weights / kGroup;
    if (rows.packed_.minimums != nullptr) rows.packed_.minimums += weights / kGroup;
    return rows;
  }
  const int64_t bytes = kind_ == kFloat32 ? 4 : kind_ == kInt8 ? 1 : 2;
  rows.values_ = static_cast<const char*>(values_) + weights * bytes;
  if (kind_ == kInt8) rows.scales_ += output;
  return rows;
}

void StepMatrix::Multiply(const float* in, const QuantizedRows* quantized, int64_t num_rows,
                          int64_t first, int64_t last, float* out, int64_t stride) const {
  const Kernels& kernels = CurrentKernels();
  if (kind_ == kPacked) {
    kernels.packed(packed_, *quantized, first / kTile, last / kTile, out, stride);
  } else if (kind_ == kInt8) {
    const Int8Matrix weights{static_cast<const int8_t*>(values_), scales_, inputs_};
    MultiplyInt8(weights, in, num_rows, first, last, out, stride);
  } else if (kind_ == kFloat32) {
    const auto* weights = static_cast<const float*>(values_);
    kernels.float32(weights, inputs_, in, num_rows, first, last, out, stride);
  } else {
    const auto* weights = static_cast<const BFloat16*>(values_);
    kernels.bfloat16(weights, inputs_, in, num_rows, first, last, out, stride);
  }
}

}  // namespace nextword

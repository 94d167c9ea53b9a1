// The matrix products of one decoding step, for each instruction set: which there are.
//
// Everything here runs on one thread, on a range of the output's columns.

#ifndef NEXTWORD_KERNELS_H_
#define NEXTWORD_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nextword {

// Memory that is kept from use to use, since the system must clear what is allocated anew. It
// begins with a line of the cache: vectors that lie across two lines take twice as long to load.
class AlignedFloats {
 public:
  // Returns memory for a number of floats, with whatever is in it.
  float* Get(int64_t count) {
    const size_t lines = (count + kFloats - 1) / kFloats;
    if (lines_.size() < lines) lines_.resize(lines);
    return reinterpret_cast<float*>(lines_.data());
  }

  // Returns the next number of floats that fills lines.
  static int64_t Whole(int64_t count) { return (count + kFloats - 1) / kFloats * kFloats; }

 private:
  static constexpr int64_t kFloats = 16;
  struct alignas(64) Line {
    float floats[kFloats];
  };
  std::vector<Line> lines_;
};

// Weights of one output that share a scale. Activations are quantised in the same groups.
constexpr int64_t kGroup = 32;
// Outputs whose packed weights lie interleaved, so that one vector load feeds them all.
constexpr int64_t kTile = 16;
// How many bytes ahead packed weights are asked for: the processor's own guess comes too late.
constexpr int64_t kPrefetch = 2048;

// A matrix [outputs, inputs] of unsigned codes, each standing for scale * code + minimum.
//
// The codes of a tile of kTile outputs and a group of kGroup inputs lie together. Of 8-bit codes,
// byte [input / 4][output][input % 4] is one code. Of 4-bit codes, byte [j][output][b] has the code
// of input 4 * j + b in its low half, and that of input 16 + 4 * j + b in its high half.
struct PackedMatrix {
  const uint8_t* codes;      // [outputs / kTile, inputs / kGroup, kTile * kGroup * bits / 8]
  const uint16_t* scales;    // float16, [outputs / kTile, inputs / kGroup, kTile]
  const uint16_t* minimums;  // as scales; null where the minimum is -zero_point * scale
  int bits;                  // 4 or 8
  int zero_point;
  int64_t outputs;  // a multiple of kTile
  int64_t inputs;   // a multiple of kGroup
};

// Rows of activations that a kernel may take together.
constexpr int64_t kBlockRows = 8;

// Some rows of activations, quantised in groups to about 15 bits: scale * code, which is exact
// enough that the result counts as that of the unquantised activations. The code is there twice,
// as one number and as 128 * high + low, whichever the processor multiplies fastest. What is
// multiplied with the same group of weights lies together.
struct QuantizedBlock {
  int64_t rows;     // at most kBlockRows
  int16_t* codes;   // [inputs / kGroup, rows, kGroup]
  int8_t* halves;   // [inputs / kGroup, rows, 2, kGroup], first the high ones
  float* scales;    // [inputs / kGroup, rows]
  float* sums;      // [inputs / kGroup, rows], of the group's quantised activations
};

// Rows of quantised activations, and the memory that they lie in.
class QuantizedRows {
 public:
  QuantizedRows(int64_t num_rows, int64_t inputs);

  // Quantises one row of activations. Rows may be quantised by different threads.
  void Quantize(int64_t row, const float* activations);

  const std::vector<QuantizedBlock>& blocks() const { return blocks_; }

 private:
  int64_t inputs_;
  std::vector<int16_t> codes_;
  std::vector<int8_t> halves_;
  std::vector<float> factors_;
  std::vector<QuantizedBlock> blocks_;
};

// Writes out[row * stride + output] for all rows and the outputs of tiles [first, last).
using PackedKernel = void (*)(const PackedMatrix& weights, const QuantizedRows& rows,
                              int64_t first, int64_t last, float* out, int64_t stride);

// The same for a matrix [outputs, inputs] of numbers that are multiplied as floats, for outputs
// [first, last), with activations in[row * inputs + input].
template <typename Weight>
using FloatKernel = void (*)(const Weight* weights, int64_t inputs, const float* in,
                             int64_t num_rows, int64_t first, int64_t last, float* out,
                             int64_t stride);

struct BFloat16 {
  uint16_t bits;
};

enum ActivationKind : int64_t { kSilu, kGeluTanh, kQuickGelu, kGelu, kRelu, kReluSquared };

// Writes out[i] = activation(gate[i]) * up[i], or without `up` activation(gate[i]). With a positive
// limit the gate is bounded by it from above, `up` on both sides, and 1 is added to `up`.
using ActivationKernel = void (*)(ActivationKind kind, const float* gate, const float* up,
                                  int64_t width, float limit, float* out);

// Writes in * (scale + offset) / sqrt(mean(in ** 2) + epsilon) + bias, where the mean of `in` was
// taken away before if `is_centered`. `bias` may be null, and `out` may be `in`.
using NormKernel = void (*)(const float* in, int64_t width, bool is_centered, float epsilon,
                            const float* scale, float offset, const float* bias, float* out);

// The attention of some queries that share a key/value head.
struct AttentionHead {
  const float* query;  // [queries, key_width]
  const void* keys;    // [capacity, key_width]
  const void* values;  // [capacity, value_width]
  int64_t queries, key_width, value_width;
  int64_t first, last;  // the positions that are looked at
  float scale;
  float soft_cap;       // 0 for none
  const float* slopes;  // ALiBi's, [queries], or null
  const float* sinks;   // [queries], or null
  float* scores;        // memory for [queries, last - first]
  float* out;           // [queries, value_width]
};

using AttentionKernel = void (*)(const AttentionHead& head);

// Quantises activations as one row of a block.
using QuantizeKernel = void (*)(const float* in, int64_t inputs, const QuantizedBlock& block,
                                int64_t row);

// The kernels of one instruction set.
struct Kernels {
  const char* name;
  QuantizeKernel quantize;
  PackedKernel packed;
  FloatKernel<float> float32;
  FloatKernel<BFloat16> bfloat16;
  FloatKernel<int8_t> int8;
  AttentionKernel attend_float32;
  AttentionKernel attend_bfloat16;
  ActivationKernel activate;
  NormKernel normalize;
};

// A matrix [outputs, inputs] of integers, each standing for code / scale.
struct Int8Matrix {
  const int8_t* codes;
  const float* scales;  // [outputs]
  int64_t inputs;
};

// As FloatKernel, with the kernels in use.
void MultiplyInt8(const Int8Matrix& weights, const float* in, int64_t num_rows, int64_t first,
                  int64_t last, float* out, int64_t stride);

// Returns the kernels in use: the best that the processor can run, unless others were chosen.
const Kernels& CurrentKernels();

// Chooses the kernels of an instruction set. Returns false if the processor lacks it.
bool UseKernels(const char* name);

}  // namespace nextword

#endif  // NEXTWORD_KERNELS_H_

// Kernels for x86-64 processors with AVX-512 and VNNI.

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

// Only the functions below use these instructions, and only after the processor was asked.
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma")
#endif

namespace nextword {
namespace avx512 {

constexpr int kLanes = 16;
#include "kernels_portable.inc"
#include "step_math.inc"

}  // namespace avx512

namespace {

inline void Prefetch(const void* address) {
  _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0);
}

inline __m512i Broadcast4(const int8_t* bytes) {
  int32_t word;
  __builtin_memcpy(&word, bytes, 4);
  return _mm512_set1_epi32(word);
}

inline __m512 Float16(const uint16_t* values) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
}

// One tile of outputs and kRows rows of a block of activations.
template <int kBits, int kRows>
void PackedTile(const PackedMatrix& weights, const QuantizedBlock& block, int64_t row, int64_t tile,
                float* out, int64_t stride) {
  constexpr int64_t kBytes = kTile * kGroup * kBits / 8;
  static const bool is_amd = __builtin_cpu_is("amd");
  // What is read as fast as 8-bit codes for one row are, AMD's processors foresee by themselves.
  const bool is_foreseen = is_amd && kBits == 8 && kRows == 1;
  const int64_t ahead = is_amd ? 2 * kPrefetch : kPrefetch;
  const int64_t groups = weights.inputs / kGroup;
  const uint8_t* codes = weights.codes + tile * groups * kBytes;
  const uint16_t* scales = weights.scales + tile * groups * kTile;
  const uint16_t* minimums =
      weights.minimums == nullptr ? nullptr : weights.minimums + tile * groups * kTile;
  const int8_t* halves = block.halves + row * 2 * kGroup;
  const float* row_scales = block.scales + row;
  const float* row_sums = block.sums + row;
  const __m512 zero_point = _mm512_set1_ps(-static_cast<float>(weights.zero_point));
  const __m512i low_half = _mm512_set1_epi8(0x0f);
  __m512 sums[kRows];
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; ++g) {
    __m512i high[kRows], low[kRows];
    for (int r = 0; r < kRows; ++r) high[r] = low[r] = _mm512_setzero_si512();
    const auto add_products = [&](__m512i code, int64_t input) {
      for (int r = 0; r < kRows; ++r) {
        const int8_t* activations = halves + r * 2 * kGroup + input;
        high[r] = _mm512_dpbusd_epi32(high[r], code, Broadcast4(activations));
        low[r] = _mm512_dpbusd_epi32(low[r], code, Broadcast4(activations + kGroup));
      }
    };
    for (int j = 0; j < kGroup * kBits / 32; ++j) {
      if (!is_foreseen) Prefetch(codes + ahead + 64 * j);
      const __m512i code = _mm512_loadu_si512(codes + 64 * j);
      if constexpr (kBits == 4) {
        add_products(_mm512_and_si512(code, low_half), 4 * j);
        add_products(_mm512_and_si512(_mm512_srli_epi16(code, 4), low_half), kGroup / 2 + 4 * j);
      } else {
        add_products(code, 4 * j);
      }
    }
    const __m512 scale = Float16(scales + g * kTile);
    const __m512 minimum = minimums == nullptr ? _mm512_mul_ps(scale, zero_point)
                                               : Float16(minimums + g * kTile);
    for (int r = 0; r < kRows; ++r) {
      const __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(high[r], 7), low[r]);
      const __m512 scaled = _mm512_mul_ps(scale, _mm512_set1_ps(row_scales[r]));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scaled, sums[r]);
      sums[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(row_sums[r]), sums[r]);
    }
    codes += kBytes;
    halves += block.rows * 2 * kGroup;
    row_scales += block.rows;
    row_sums += block.rows;
  }
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(out + r * stride, sums[r]);
}

// One tile of outputs and the rows of a block of activations.
template <int kBits>
void PackedRows(const PackedMatrix& weights, const QuantizedBlock& block, int64_t tile, float* out,
                int64_t stride) {
  int64_t row = 0;
  for (; row + 8 <= block.rows; row += 8) {
    PackedTile<kBits, 8>(weights, block, row, tile, out + row * stride, stride);
  }
  for (; row + 4 <= block.rows; row += 4) {
    PackedTile<kBits, 4>(weights, block, row, tile, out + row * stride, stride);
  }
  for (; row + 2 <= block.rows; row += 2) {
    PackedTile<kBits, 2>(weights, block, row, tile, out + row * stride, stride);
  }
  for (; row < block.rows; ++row) {
    PackedTile<kBits, 1>(weights, block, row, tile, out + row * stride, stride);
  }
}

void Packed(const PackedMatrix& weights, const QuantizedRows& rows, int64_t first, int64_t last,
            float* out, int64_t stride) {
  const auto kernel = weights.bits == 4 ? PackedRows<4> : PackedRows<8>;
  for (int64_t tile = first; tile < last; ++tile) {
    float* at = out + tile * kTile;
    for (const QuantizedBlock& block : rows.blocks()) {
      kernel(weights, block, tile, at, stride);
      at += block.rows * stride;
    }
  }
}

// Weights are multiplied 32 at a time, in two halves.
constexpr int64_t kPair = 32;

template <typename Weight>
class Pair;

template <>
class Pair<float> {
 public:
  explicit Pair(const float* values) : values_(values) {}

  __m512 half(int number) const { return _mm512_loadu_ps(values_ + 16 * number); }

 private:
  const float* values_;
};

template <>
class Pair<int8_t> {
 public:
  explicit Pair(const int8_t* values) : values_(values) {}

  __m512 half(int number) const {
    const auto* half = reinterpret_cast<const __m128i*>(values_ + 16 * number);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(half)));
  }

 private:
  const int8_t* values_;
};

// Two numbers lie in each word: the halves are those at even and those at odd places.
template <>
class Pair<BFloat16> {
 public:
  explicit Pair(const BFloat16* values) : words_(_mm512_loadu_si512(values)) {}

  __m512 half(int number) const {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    return _mm512_castsi512_ps(number == 0 ? _mm512_slli_epi32(words_, 16)
                                           : _mm512_and_si512(words_, upper));
  }

 private:
  __m512i words_;
};

// Rows of activations, `inputs` from one to the next.
//
// Where weights are numbers of float32 or int8, as they are.
template <typename Weight>
const float* InOrder(const Weight*, const float* in, int64_t, int64_t) {
  return in;
}

// Where they are of bfloat16, in the order of a pair's halves.
const float* InOrder(const BFloat16*, const float* in, int64_t inputs, int64_t num_rows) {
  thread_local AlignedFloats memory;
  float* ordered = memory.Get(num_rows * inputs);
  std::copy(in, in + num_rows * inputs, ordered);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t i = 0; i + kPair <= inputs; i += kPair) {
      const Pair<float> pair(in + row * inputs + i);
      float* out = ordered + row * inputs + i;
      _mm512_storeu_ps(out, _mm512_permutex2var_ps(pair.half(0), even, pair.half(1)));
      _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(pair.half(0), odd, pair.half(1)));
    }
  }
  return ordered;
}

// kOutputs outputs and kRows rows of activations. Each result is summed in the same order whatever
// the number of either.
template <int kOutputs, int kRows, typename Weight>
void FloatBlock(const Weight* weights, int64_t inputs, const float* in, float* out,
                int64_t stride) {
  // The halves have sums of their own: one addition need not wait for the last.
  __m512 first[kOutputs][kRows], second[kOutputs][kRows];
  for (int o = 0; o < kOutputs; ++o) {
    for (int r = 0; r < kRows; ++r) first[o][r] = second[o][r] = _mm512_setzero_ps();
  }
  int64_t i = 0;
  for (; i + kPair <= inputs; i += kPair) {
    // Where much is computed with each weight, the processor does not look ahead far enough.
    if constexpr (kRows > 1) {
      const int64_t ahead = kOutputs > 1 ? kOutputs * inputs : kPrefetch / sizeof(Weight);
      for (int o = 0; o < kOutputs; ++o) {
        const Weight* next = weights + o * inputs + i + ahead;
        for (size_t line = 0; line < kPair; line += 64 / sizeof(Weight)) Prefetch(next + line);
      }
    }
    for (int o = 0; o < kOutputs; ++o) {
      const Pair<Weight> pair(weights + o * inputs + i);
      const __m512 one = pair.half(0), other = pair.half(1);
      for (int r = 0; r < kRows; ++r) {
        const Pair<float> activations(in + r * inputs + i);
        first[o][r] = _mm512_fmadd_ps(one, activations.half(0), first[o][r]);
        second[o][r] = _mm512_fmadd_ps(other, activations.half(1), second[o][r]);
      }
    }
  }
#pragma GCC unroll 2
  for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      out[r * stride + o] = _mm512_reduce_add_ps(_mm512_add_ps(first[o][r], second[o][r]));
    }
  }
  for (; i < inputs; ++i) {
    for (int o = 0; o < kOutputs; ++o) {
      const float weight = avx512::Float32(weights[o * inputs + i]);
      for (int r = 0; r < kRows; ++r) out[r * stride + o] += weight * in[r * inputs + i];
    }
  }
}

// Some outputs and the rows from `row` on that make blocks of kRows. Returns the next row.
template <int kOutputs, int kRows, typename Weight>
int64_t FloatRows(const Weight* weights, int64_t inputs, const float* in, int64_t row,
                  int64_t num_rows, float* out, int64_t stride) {
  for (; row + kRows <= num_rows; row += kRows) {
    FloatBlock<kOutputs, kRows>(weights, inputs, in + row * inputs, out + row * stride, stride);
  }
  return row;
}

// As many bytes of activations as stay in the first cache beside the weights.
constexpr int64_t kCached = 24 << 10;

template <typename Weight>
void Float(const Weight* weights, int64_t inputs, const float* in, int64_t num_rows, int64_t first,
           int64_t last, float* out, int64_t stride) {
  in = InOrder(weights, in, inputs, num_rows);
  int64_t output = first;
  const bool is_cached = kBlockRows * inputs * static_cast<int64_t>(sizeof(float)) <= kCached;
  // Where memory is the limit, weights are read as they lie, which the processor foresees best.
  const bool is_paired = num_rows >= 4 && !(is_cached && num_rows >= kBlockRows);
  for (; is_paired && output + 2 <= last; output += 2) {
    const Weight* pair = weights + output * inputs;
    const int64_t row = FloatRows<2, 4>(pair, inputs, in, 0, num_rows, out + output, stride);
    FloatRows<2, 1>(pair, inputs, in, row, num_rows, out + output, stride);
  }
  for (; output < last; ++output) {
    const Weight* weight = weights + output * inputs;
    int64_t row = 0;
    if (is_cached) row = FloatRows<1, 8>(weight, inputs, in, row, num_rows, out + output, stride);
    row = FloatRows<1, 4>(weight, inputs, in, row, num_rows, out + output, stride);
    FloatRows<1, 1>(weight, inputs, in, row, num_rows, out + output, stride);
  }
}

}  // namespace

extern const Kernels kAvx512Kernels;
const Kernels kAvx512Kernels = {
    "avx512-vnni",
    avx512::Quantize,
    Packed,
    Float<float>,
    Float<BFloat16>,
    Float<int8_t>,
    avx512::Attend<float>,
    avx512::Attend<BFloat16>,
    avx512::Activate,
    avx512::Normalize,
};

}  // namespace nextword

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // x86-64

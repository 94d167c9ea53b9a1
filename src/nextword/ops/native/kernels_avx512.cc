// Kernels for x86-64 processors with AVX-512 and VNNI.

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include <cmath>
#include <cstring>

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

// One tile of outputs and kRows rows of activations.
template <int kBits, int kRows>
void PackedTile(const PackedMatrix& weights, const QuantizedRow* rows, int64_t tile, float* out,
                int64_t stride) {
  constexpr int64_t kBytes = kTile * kGroup * kBits / 8;
  const int64_t groups = weights.inputs / kGroup;
  // AMD's processors foresee what is read as fast as 8-bit codes are, and are then but disturbed.
  static const int64_t ahead = __builtin_cpu_is("amd") ? 0 : kPrefetch;
  const uint8_t* codes = weights.codes + tile * groups * kBytes;
  const uint16_t* scales = weights.scales + tile * groups * kTile;
  const uint16_t* minimums =
      weights.minimums == nullptr ? nullptr : weights.minimums + tile * groups * kTile;
  const __m512 zero_point = _mm512_set1_ps(-static_cast<float>(weights.zero_point));
  const __m512i low_half = _mm512_set1_epi8(0x0f);
  __m512 sums[kRows];
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; ++g) {
    __m512i high[kRows], low[kRows];
    for (int r = 0; r < kRows; ++r) high[r] = low[r] = _mm512_setzero_si512();
    const int64_t start = g * kGroup;
    if constexpr (kBits == 4) {
      for (int j = 0; j < 4; ++j) {
        Prefetch(codes + kPrefetch + 64 * j);
        const __m512i both = _mm512_loadu_si512(codes + 64 * j);
        const __m512i first = _mm512_and_si512(both, low_half);
        const __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half);
        for (int r = 0; r < kRows; ++r) {
          const int8_t* h = rows[r].high + start + 4 * j;
          const int8_t* l = rows[r].low + start + 4 * j;
          high[r] = _mm512_dpbusd_epi32(high[r], first, Broadcast4(h));
          low[r] = _mm512_dpbusd_epi32(low[r], first, Broadcast4(l));
          high[r] = _mm512_dpbusd_epi32(high[r], second, Broadcast4(h + 16));
          low[r] = _mm512_dpbusd_epi32(low[r], second, Broadcast4(l + 16));
        }
      }
    } else {
      for (int j = 0; j < 8; ++j) {
        Prefetch(codes + ahead + 64 * j);
        const __m512i code = _mm512_loadu_si512(codes + 64 * j);
        for (int r = 0; r < kRows; ++r) {
          high[r] = _mm512_dpbusd_epi32(high[r], code, Broadcast4(rows[r].high + start + 4 * j));
          low[r] = _mm512_dpbusd_epi32(low[r], code, Broadcast4(rows[r].low + start + 4 * j));
        }
      }
    }
    codes += kBytes;
    const __m512 scale = Float16(scales + g * kTile);
    const __m512 minimum = minimums == nullptr ? _mm512_mul_ps(scale, zero_point)
                                               : Float16(minimums + g * kTile);
    for (int r = 0; r < kRows; ++r) {
      const __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(high[r], 7), low[r]);
      const __m512 scaled = _mm512_mul_ps(scale, _mm512_set1_ps(rows[r].scales[g]));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scaled, sums[r]);
      sums[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(rows[r].sums[g]), sums[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(out + r * stride + tile * kTile, sums[r]);
}

template <int kBits>
void PackedRange(const PackedMatrix& weights, const QuantizedRow* rows, int64_t num_rows,
                 int64_t first, int64_t last, float* out, int64_t stride) {
  for (int64_t tile = first; tile < last; ++tile) {
    int64_t row = 0;
    for (; row + 8 <= num_rows; row += 8) {
      PackedTile<kBits, 8>(weights, rows + row, tile, out + row * stride, stride);
    }
    for (; row + 4 <= num_rows; row += 4) {
      PackedTile<kBits, 4>(weights, rows + row, tile, out + row * stride, stride);
    }
    for (; row + 2 <= num_rows; row += 2) {
      PackedTile<kBits, 2>(weights, rows + row, tile, out + row * stride, stride);
    }
    for (; row < num_rows; ++row) {
      PackedTile<kBits, 1>(weights, rows + row, tile, out + row * stride, stride);
    }
  }
}

void Packed(const PackedMatrix& weights, const QuantizedRow* rows, int64_t num_rows, int64_t first,
            int64_t last, float* out, int64_t stride) {
  const auto range = weights.bits == 4 ? PackedRange<4> : PackedRange<8>;
  range(weights, rows, num_rows, first, last, out, stride);
}

constexpr __mmask16 kAll = 0xffff;

inline __m512 Load(const float* values, __mmask16 mask) {
  return mask == kAll ? _mm512_loadu_ps(values) : _mm512_maskz_loadu_ps(mask, values);
}

inline __m512 Load(const BFloat16* values, __mmask16 mask) {
  const __m256i halves = mask == kAll
                             ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values))
                             : _mm256_maskz_loadu_epi16(mask, values);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

inline __m512 Load(const int8_t* values, __mmask16 mask) {
  const __m128i codes = mask == kAll ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(values))
                                     : _mm_maskz_loadu_epi8(mask, values);
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
}

// Adds up to 16 products for each of kOutputs outputs and kRows rows of activations.
template <int kOutputs, int kRows, typename Weight>
inline void AddProducts(const Weight* weights, const float* in, int64_t inputs, __mmask16 mask,
                        __m512 (*sums)[kRows]) {
  __m512 activations[kRows];
  for (int r = 0; r < kRows; ++r) activations[r] = Load(in + r * inputs, mask);
  for (int o = 0; o < kOutputs; ++o) {
    // Where much is computed with each weight, the processor does not look ahead far enough.
    if constexpr (kRows > 1) Prefetch(weights + (o + kOutputs) * inputs);
    const __m512 weight = Load(weights + o * inputs, mask);
    for (int r = 0; r < kRows; ++r) {
      sums[o][r] = _mm512_fmadd_ps(weight, activations[r], sums[o][r]);
    }
  }
}

// kOutputs outputs and kRows rows of activations. Each result is summed in the same order whatever
// the number of either.
template <int kOutputs, int kRows, typename Weight>
void FloatBlock(const Weight* weights, int64_t inputs, const float* in, float* out,
                int64_t stride) {
  // Every other 16 products are summed by themselves: one addition need not wait for the last.
  __m512 even[kOutputs][kRows], odd[kOutputs][kRows];
  for (int o = 0; o < kOutputs; ++o) {
    for (int r = 0; r < kRows; ++r) even[o][r] = odd[o][r] = _mm512_setzero_ps();
  }
  int64_t i = 0;
  for (; i + 32 <= inputs; i += 32) {
    AddProducts<kOutputs, kRows>(weights + i, in + i, inputs, kAll, even);
    AddProducts<kOutputs, kRows>(weights + i + 16, in + i + 16, inputs, kAll, odd);
  }
  for (; i < inputs; i += 16) {
    const int64_t left = inputs - i;
    const __mmask16 mask = left >= 16 ? 0xffff : (1u << left) - 1;
    AddProducts<kOutputs, kRows>(weights + i, in + i, inputs, mask, i % 32 ? odd : even);
  }
  for (int o = 0; o < kOutputs; ++o) {
    for (int r = 0; r < kRows; ++r) {
      out[r * stride + o] = _mm512_reduce_add_ps(_mm512_add_ps(even[o][r], odd[o][r]));
    }
  }
}

template <int kOutputs, typename Weight>
void FloatRows(const Weight* weights, int64_t inputs, const float* in, int64_t num_rows, float* out,
               int64_t stride) {
  int64_t row = 0;
  for (; row + 4 <= num_rows; row += 4) {
    FloatBlock<kOutputs, 4>(weights, inputs, in + row * inputs, out + row * stride, stride);
  }
  for (; row < num_rows; ++row) {
    FloatBlock<kOutputs, 1>(weights, inputs, in + row * inputs, out + row * stride, stride);
  }
}

template <typename Weight>
void Float(const Weight* weights, int64_t inputs, const float* in, int64_t num_rows, int64_t first,
           int64_t last, float* out, int64_t stride) {
  int64_t output = first;
  // Where memory is the limit, weights are read as they lie, which the processor foresees best.
  const int64_t pairs_end = num_rows < 4 ? first : last - (last - first) % 2;
  for (; output < pairs_end; output += 2) {
    FloatRows<2>(weights + output * inputs, inputs, in, num_rows, out + output, stride);
  }
  for (; output < last; ++output) {
    FloatRows<1>(weights + output * inputs, inputs, in, num_rows, out + output, stride);
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

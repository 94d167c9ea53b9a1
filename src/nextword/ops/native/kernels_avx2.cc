// Kernels for x86-64 processors with AVX2: the portable ones compiled for them, and packed weights.

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <utility>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace nextword {
namespace avx2 {

constexpr int kLanes = 8;
#include "kernels_portable.inc"
#include "step_math.inc"

// 32 codes of a word of 4 inputs for 8 outputs, times their activations: the sums of two inputs
// each, those of outputs 0 to 3 in `first` and those of outputs 4 to 7 in `second`.
inline void MultiplyAdd(__m256i codes, __m256i activations, __m256i* first, __m256i* second) {
  const __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(codes));
  const __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(codes, 1));
  *first = _mm256_add_epi32(*first, _mm256_madd_epi16(low, activations));
  *second = _mm256_add_epi32(*second, _mm256_madd_epi16(high, activations));
}

// One tile of outputs and one row of a block of activations.
template <int kBits>
void WideTile(const PackedMatrix& weights, const QuantizedBlock& block, int64_t row, int64_t tile,
              float* out) {
  constexpr int64_t kBytes = kTile * kGroup * kBits / 8;
  const int64_t groups = weights.inputs / kGroup;
  const __m256i low_half = _mm256_set1_epi8(0x0f);
  __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t at = tile * groups + g;
    const uint8_t* codes = weights.codes + at * kBytes;
    const int64_t quantized = g * block.rows + row;
    const int16_t* activations = block.codes + quantized * kGroup;
    __m256i dots[2][2] = {{_mm256_setzero_si256(), _mm256_setzero_si256()},
                          {_mm256_setzero_si256(), _mm256_setzero_si256()}};
    for (int j = 0; j < kGroup * kBits / 32; ++j) {
      _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetch + 64 * j, _MM_HINT_T0);
      for (int half = 0; half < 2; ++half) {
        const __m256i bytes =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 64 * j + 32 * half));
        int64_t words[2];
        std::memcpy(&words[0], activations + 4 * j, 8);
        if (kBits == 4) {
          std::memcpy(&words[1], activations + 16 + 4 * j, 8);
          MultiplyAdd(_mm256_and_si256(bytes, low_half), _mm256_set1_epi64x(words[0]),
                      &dots[half][0], &dots[half][1]);
          MultiplyAdd(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_half),
                      _mm256_set1_epi64x(words[1]), &dots[half][0], &dots[half][1]);
        } else {
          MultiplyAdd(bytes, _mm256_set1_epi64x(words[0]), &dots[half][0], &dots[half][1]);
        }
      }
    }
    for (int half = 0; half < 2; ++half) {
      // Outputs 0, 1, 4, 5, 2, 3, 6, 7, put in order.
      const __m256i pairs = _mm256_hadd_epi32(dots[half][0], dots[half][1]);
      const __m256i ordered = _mm256_permute4x64_epi64(pairs, 0xd8);
      const auto halves = [&](const uint16_t* values) {
        const auto* address = reinterpret_cast<const __m128i*>(values + at * kTile + 8 * half);
        return _mm256_cvtph_ps(_mm_loadu_si128(address));
      };
      const __m256 scale = halves(weights.scales);
      const __m256 minimum =
          weights.minimums == nullptr
              ? _mm256_mul_ps(scale, _mm256_set1_ps(-static_cast<float>(weights.zero_point)))
              : halves(weights.minimums);
      const __m256 scaled = _mm256_mul_ps(scale, _mm256_set1_ps(block.scales[quantized]));
      sums[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(ordered), scaled, sums[half]);
      sums[half] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(block.sums[quantized]), sums[half]);
    }
  }
  _mm256_storeu_ps(out, sums[0]);
  _mm256_storeu_ps(out + 8, sums[1]);
}

void WidePacked(const PackedMatrix& weights, const QuantizedRows& rows, int64_t first, int64_t last,
                float* out, int64_t stride) {
  const auto kernel = weights.bits == 4 ? WideTile<4> : WideTile<8>;
  for (int64_t tile = first; tile < last; ++tile) {
    float* at = out + tile * kTile;
    for (const QuantizedBlock& block : rows.blocks()) {
      for (int64_t row = 0; row < block.rows; ++row, at += stride) {
        kernel(weights, block, row, tile, at);
      }
    }
  }
}

}  // namespace avx2

extern const Kernels kAvx2Kernels;
const Kernels kAvx2Kernels = {
    "avx2",
    avx2::Quantize,
    avx2::WidePacked,
    avx2::Float<float>,
    avx2::Float<BFloat16>,
    avx2::Float<int8_t>,
    avx2::Attend<float>,
    avx2::Attend<BFloat16>,
    avx2::Activate,
    avx2::Normalize,
};

}  // namespace nextword

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // x86-64

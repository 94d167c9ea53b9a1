// The kernels as custom calls of XLA, for `jax.ffi`.

#include <cstdint>

#include "kernels.h"
#include "parallel.h"
#include "step.h"
#include "xla/ffi/api/ffi.h"

namespace nextword {
namespace {

namespace ffi = xla::ffi;

// Parts are as small as pays for handing them out, and no smaller.
constexpr int64_t kMultiplicationsPerPart = 1 << 16;

// Calls `part(first, last)` for ranges of `count` items of `cost` multiplications each.
template <typename Part>
void Parallel(ffi::ThreadPool& pool, int64_t count, int64_t cost, const Part& part) {
  const int64_t threads = pool.num_threads();
  int64_t grain = count / (4 * (threads > 0 ? threads : 1));
  const int64_t smallest = kMultiplicationsPerPart / (cost > 0 ? cost : 1) + 1;
  if (grain < smallest) grain = smallest;
  ParallelFor(count, grain, threads - 1, [&pool](auto task) { pool.Schedule(std::move(task)); },
              part);
}

ffi::Error PackedLinear(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> inputs,
                        ffi::Buffer<ffi::U8> codes, ffi::Buffer<ffi::F16> scales,
                        ffi::Buffer<ffi::F16> minimums, ffi::ResultBuffer<ffi::F32> outputs,
                        int32_t bits, int32_t zero_point) {
  const auto in = inputs.dimensions(), packed = codes.dimensions();
  if (in.size() != 2 || packed.size() != 3 || packed[1] * kGroup != in[1] ||
      (bits != 4 && bits != 8) || packed[2] != kTile * kGroup * bits / 8) {
    return ffi::Error::InvalidArgument("The shapes of activations and packed weights do not fit.");
  }
  const int64_t rows = in[0], width = in[1], tiles = packed[0], groups = packed[1];
  const int64_t parameters = tiles * groups * kTile;
  const bool has_minimums = minimums.element_count() != 0;
  const int64_t results = rows * tiles * kTile;
  if (static_cast<int64_t>(scales.element_count()) != parameters ||
      (has_minimums && static_cast<int64_t>(minimums.element_count()) != parameters) ||
      static_cast<int64_t>(outputs->element_count()) != results) {
    return ffi::Error::InvalidArgument("The shapes of packed weights and outputs do not fit.");
  }
  PackedMatrix weights{codes.typed_data(),
                       reinterpret_cast<const uint16_t*>(scales.typed_data()),
                       has_minimums ? reinterpret_cast<const uint16_t*>(minimums.typed_data())
                                    : nullptr,
                       bits,
                       zero_point,
                       tiles * kTile,
                       width};
  QuantizedRows quantized(rows, width);
  Parallel(pool, rows, 16 * width, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      quantized.Quantize(row, inputs.typed_data() + row * width);
    }
  });
  const PackedKernel kernel = CurrentKernels().packed;
  Parallel(pool, tiles, kTile * width * rows, [&](int64_t first, int64_t last) {
    kernel(weights, quantized.rows(), rows, first, last, outputs->typed_data(),
           tiles * kTile);
  });
  return ffi::Error::Success();
}

template <typename Weight, typename Kernel, ffi::DataType kType>
ffi::Error FloatLinear(ffi::ThreadPool& pool, const Kernel& kernel,
                       const ffi::Buffer<ffi::F32>& inputs, const ffi::Buffer<kType>& weights,
                       ffi::ResultBuffer<ffi::F32>& outputs) {
  const auto in = inputs.dimensions(), shape = weights.dimensions();
  const auto out = outputs->dimensions();
  if (in.size() != 2 || shape.size() != 2 || out.size() != 2 || shape[1] != in[1] ||
      out[0] != in[0] || out[1] != shape[0]) {
    return ffi::Error::InvalidArgument("The shapes of activations, weights and outputs differ.");
  }
  Parallel(pool, shape[0], in[1] * in[0], [&](int64_t first, int64_t last) {
    kernel(reinterpret_cast<const Weight*>(weights.typed_data()), in[1], inputs.typed_data(), in[0],
           first, last, outputs->typed_data(), shape[0]);
  });
  return ffi::Error::Success();
}

ffi::Error Float32Linear(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> inputs,
                         ffi::Buffer<ffi::F32> weights, ffi::ResultBuffer<ffi::F32> outputs) {
  return FloatLinear<float>(pool, CurrentKernels().float32, inputs, weights, outputs);
}

ffi::Error BFloat16Linear(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> inputs,
                          ffi::Buffer<ffi::BF16> weights, ffi::ResultBuffer<ffi::F32> outputs) {
  return FloatLinear<BFloat16>(pool, CurrentKernels().bfloat16, inputs, weights, outputs);
}

ffi::Error Int8Linear(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> inputs,
                      ffi::Buffer<ffi::S8> codes, ffi::Buffer<ffi::F32> scales,
                      ffi::ResultBuffer<ffi::F32> outputs) {
  if (codes.dimensions().size() != 2 ||
      static_cast<int64_t>(scales.element_count()) != codes.dimensions()[0]) {
    return ffi::Error::InvalidArgument("The shapes of int8 weights and their scales differ.");
  }
  const auto product = [&](const int8_t* values, int64_t width, const float* in, int64_t rows,
                           int64_t first, int64_t last, float* out, int64_t stride) {
    MultiplyInt8({values, scales.typed_data(), width}, in, rows, first, last, out, stride);
  };
  return FloatLinear<int8_t>(pool, product, inputs, codes, outputs);
}

Operand::Type TypeOf(ffi::DataType type) {
  switch (type) {
    case ffi::F32:
      return Operand::kFloat32;
    case ffi::BF16:
      return Operand::kBFloat16;
    case ffi::F16:
      return Operand::kFloat16;
    case ffi::U8:
      return Operand::kUint8;
    case ffi::S8:
      return Operand::kInt8;
    default:
      return Operand::kOther;
  }
}

// Arguments: hidden states [rows, length, width], positions [rows], and the step's operands, of
// which the caches come first. Results: hidden states, and the caches, which share the arguments'
// memory.
ffi::Error DecodeStep(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> inputs,
                      ffi::Buffer<ffi::S32> positions, ffi::RemainingArgs arrays,
                      ffi::ResultBuffer<ffi::F32> outputs, ffi::RemainingRets caches,
                      ffi::Span<const int64_t> program, ffi::Span<const float> factors,
                      ffi::Span<const int64_t> widths, int64_t result) {
  const auto shape = inputs.dimensions();
  if (shape.size() != 3 || static_cast<int64_t>(positions.element_count()) != shape[0] ||
      outputs->element_count() != inputs.element_count() || widths.size() == 0 ||
      widths[0] != shape[2] || caches.size() == 0 || caches.size() > arrays.size()) {
    return ffi::Error::InvalidArgument("The shapes of a step's operands do not fit.");
  }
  Step step{program.begin(), static_cast<int64_t>(program.size()),
            factors.begin(), static_cast<int64_t>(factors.size()),
            widths.begin(),  static_cast<int64_t>(widths.size()),
            shape[0],        shape[1],
            positions.typed_data(), 0,
            inputs.typed_data(),    outputs->typed_data(), result, {}};
  for (size_t i = 0; i < arrays.size(); ++i) {
    const auto array = arrays.get<ffi::AnyBuffer>(i);
    if (array.has_error()) return array.error();
    step.operands.push_back({array->untyped_data(), TypeOf(array->element_type()),
                             static_cast<int64_t>(array->element_count())});
  }
  for (size_t i = 0; i < caches.size(); ++i) {
    auto cache = caches.get<ffi::AnyBuffer>(i);
    if (cache.has_error()) return cache.error();
    const auto dimensions = (*cache)->dimensions();
    if (dimensions.size() != 4 || (*cache)->untyped_data() != step.operands[i].data ||
        (i > 0 && dimensions[2] != step.capacity)) {
      return ffi::Error::InvalidArgument("A step's caches must be changed in place.");
    }
    step.capacity = dimensions[2];
  }
  const std::string error = RunStep(step, pool.num_threads(), [&pool](std::function<void()> task) {
    pool.Schedule(std::move(task));
  });
  return error.empty() ? ffi::Error::Success() : ffi::Error::InvalidArgument(error);
}

}  // namespace
}  // namespace nextword

#define NEXTWORD_EXPORT extern "C" __attribute__((visibility("default")))

// The name of the instruction set that is used, and the choice of another.
NEXTWORD_EXPORT const char* nextword_kernels_in_use() { return nextword::CurrentKernels().name; }
NEXTWORD_EXPORT int nextword_use_kernels(const char* name) { return nextword::UseKernels(name); }

NEXTWORD_EXPORT XLA_FFI_Error* nextword_packed_linear(XLA_FFI_CallFrame*);
NEXTWORD_EXPORT XLA_FFI_Error* nextword_float32_linear(XLA_FFI_CallFrame*);
NEXTWORD_EXPORT XLA_FFI_Error* nextword_bfloat16_linear(XLA_FFI_CallFrame*);
NEXTWORD_EXPORT XLA_FFI_Error* nextword_int8_linear(XLA_FFI_CallFrame*);
NEXTWORD_EXPORT XLA_FFI_Error* nextword_decode_step(XLA_FFI_CallFrame*);

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_packed_linear, nextword::PackedLinear,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::U8>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F16>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F16>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Attr<int32_t>("bits")
                                  .Attr<int32_t>("zero_point"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_float32_linear, nextword::Float32Linear,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_bfloat16_linear, nextword::BFloat16Linear,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::BF16>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_int8_linear, nextword::Int8Linear,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S8>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_decode_step, nextword::DecodeStep,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()
                                  .RemainingArgs()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .RemainingRets()
                                  .Attr<xla::ffi::Span<const int64_t>>("program")
                                  .Attr<xla::ffi::Span<const float>>("factors")
                                  .Attr<xla::ffi::Span<const int64_t>>("widths")
                                  .Attr<int64_t>("result"));

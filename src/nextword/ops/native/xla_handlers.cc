// The kernels as custom calls of XLA, for `jax.ffi`.

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "array.h"
#include "products.h"
#include "step.h"
#include "xla/ffi/api/ffi.h"

namespace nextword {
namespace {

namespace ffi = xla::ffi;

Array::Type TypeOf(ffi::DataType type) {
  switch (type) {
    case ffi::F32:
      return Array::kFloat32;
    case ffi::BF16:
      return Array::kBFloat16;
    case ffi::F16:
      return Array::kFloat16;
    case ffi::U8:
      return Array::kUint8;
    case ffi::S8:
      return Array::kInt8;
    case ffi::S32:
      return Array::kInt32;
    default:
      return Array::kOther;
  }
}

Array ArrayOf(ffi::AnyBuffer buffer) {
  const auto shape = buffer.dimensions();
  Array array{buffer.untyped_data(), TypeOf(buffer.element_type()), 0, {}};
  if (shape.size() > Array::kMostDimensions) {
    array.type = Array::kOther;
    return array;
  }
  for (const int64_t size : shape) array.shape[array.rank++] = size;
  return array;
}

Array ArrayOf(ffi::Result<ffi::AnyBuffer> buffer) { return ArrayOf(*buffer); }

Threads ThreadsOf(ffi::ThreadPool& pool) {
  return {pool.num_threads(),
          [&pool](std::function<void()> task) { pool.Schedule(std::move(task)); }};
}

ffi::Error ErrorOf(const std::string& error) {
  return error.empty() ? ffi::Error::Success() : ffi::Error::InvalidArgument(error);
}

ffi::Error XlaFloatLinear(ffi::ThreadPool pool, ffi::AnyBuffer inputs, ffi::AnyBuffer weights,
                          ffi::Result<ffi::AnyBuffer> outputs) {
  return ErrorOf(
      FloatLinear(ArrayOf(inputs), ArrayOf(weights), ArrayOf(outputs), ThreadsOf(pool)));
}

ffi::Error XlaInt8Linear(ffi::ThreadPool pool, ffi::AnyBuffer inputs, ffi::AnyBuffer codes,
                         ffi::AnyBuffer scales, ffi::Result<ffi::AnyBuffer> outputs) {
  return ErrorOf(Int8Linear(ArrayOf(inputs), ArrayOf(codes), ArrayOf(scales), ArrayOf(outputs),
                            ThreadsOf(pool)));
}

ffi::Error XlaPackedLinear(ffi::ThreadPool pool, ffi::AnyBuffer inputs, ffi::AnyBuffer codes,
                           ffi::AnyBuffer scales, ffi::AnyBuffer minimums,
                           ffi::Result<ffi::AnyBuffer> outputs, int64_t bits, int64_t zero_point) {
  return ErrorOf(PackedLinear(ArrayOf(inputs), ArrayOf(codes), ArrayOf(scales), ArrayOf(minimums),
                              ArrayOf(outputs), bits, zero_point, ThreadsOf(pool)));
}

// Arguments: hidden states [rows, length, width], positions [rows], descriptions of arrays that lie
// elsewhere, [arrays, numbers], and the step's caches and other operands. Those of which `places`
// has the number of a description are not among the arguments. Results: hidden states, and the
// caches, which share the arguments' memory.
ffi::Error XlaDecodeStep(ffi::ThreadPool pool, ffi::AnyBuffer inputs, ffi::AnyBuffer positions,
                         ffi::AnyBuffer descriptions, ffi::RemainingArgs arrays,
                         ffi::Result<ffi::AnyBuffer> outputs, ffi::RemainingRets caches,
                         ffi::Span<const int64_t> places, ffi::Span<const int64_t> program,
                         ffi::Span<const float> factors, ffi::Span<const int64_t> widths,
                         int64_t result) {
  Step step{program.begin(),
            static_cast<int64_t>(program.size()),
            factors.begin(),
            static_cast<int64_t>(factors.size()),
            widths.begin(),
            static_cast<int64_t>(widths.size()),
            result,
            ArrayOf(inputs),
            ArrayOf(positions),
            ArrayOf(outputs),
            static_cast<int64_t>(caches.size()),
            {}};
  const Array* described = static_cast<const Array*>(descriptions.untyped_data());
  const auto num_described = static_cast<int64_t>(descriptions.size_bytes() / sizeof(Array));
  const size_t num_operands = caches.size() + places.size();
  for (size_t i = 0, next = 0; i < num_operands; ++i) {
    const int64_t place = i < caches.size() ? -1 : places[i - caches.size()];
    if (place >= num_described) return ffi::Error::InvalidArgument("An operand is not described.");
    if (place >= 0) {
      step.operands.push_back(described[place]);
      continue;
    }
    const auto array = arrays.get<ffi::AnyBuffer>(next++);
    if (array.has_error()) return array.error();
    step.operands.push_back(ArrayOf(*array));
  }
  for (size_t i = 0; i < caches.size(); ++i) {
    auto cache = caches.get<ffi::AnyBuffer>(i);
    if (cache.has_error()) return cache.error();
    if (i >= step.operands.size() || (*cache)->untyped_data() != step.operands[i].data) {
      return ffi::Error::InvalidArgument("A step's caches must be changed in place.");
    }
  }
  return ErrorOf(RunStep(step, ThreadsOf(pool)));
}

}  // namespace
}  // namespace nextword

#define NEXTWORD_EXPORT extern "C" __attribute__((visibility("default")))

NEXTWORD_EXPORT XLA_FFI_Error* nextword_float_linear(XLA_FFI_CallFrame*);
NEXTWORD_EXPORT XLA_FFI_Error* nextword_int8_linear(XLA_FFI_CallFrame*);
NEXTWORD_EXPORT XLA_FFI_Error* nextword_packed_linear(XLA_FFI_CallFrame*);
NEXTWORD_EXPORT XLA_FFI_Error* nextword_decode_step(XLA_FFI_CallFrame*);

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_float_linear, nextword::XlaFloatLinear,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_int8_linear, nextword::XlaInt8Linear,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_packed_linear, nextword::XlaPackedLinear,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<int64_t>("bits")
                                  .Attr<int64_t>("zero_point"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(nextword_decode_step, nextword::XlaDecodeStep,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .RemainingArgs()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .RemainingRets()
                                  .Attr<xla::ffi::Span<const int64_t>>("places")
                                  .Attr<xla::ffi::Span<const int64_t>>("program")
                                  .Attr<xla::ffi::Span<const float>>("factors")
                                  .Attr<xla::ffi::Span<const int64_t>>("widths")
                                  .Attr<int64_t>("result"));

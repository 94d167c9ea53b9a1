// The kernels as plain C functions, which `torch_calls.py` and `library.py` call through ctypes.
//
// Those that compute take the number of threads to share the work, and return what is wrong with
// their arguments, or null.

#include <cstdint>
#include <exception>
#include <string>

#include "array.h"
#include "kernels.h"
#include "products.h"
#include "step.h"
#include "thread_pool.h"

#define NEXTWORD_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using nextword::Array;
using nextword::ThreadPool;

// Calls a function that returns a string. No exception leaves it, as nobody could catch one.
template <typename Function>
const char* ErrorOf(const Function& function) {
  thread_local std::string error;
  try {
    error = function();
  } catch (const std::exception& exception) {
    error = exception.what();
  }
  return error.empty() ? nullptr : error.c_str();
}

}  // namespace

// The name of the instruction set that is used, and the choice of another.
NEXTWORD_EXPORT const char* nextword_kernels_in_use() { return nextword::CurrentKernels().name; }
NEXTWORD_EXPORT int nextword_use_kernels(const char* name) { return nextword::UseKernels(name); }

// Arrays: inputs, weights, outputs; see FloatLinear.
NEXTWORD_EXPORT const char* nextword_c_float_linear(const Array* arrays, int64_t threads) {
  return ErrorOf([&] {
    return nextword::FloatLinear(arrays[0], arrays[1], arrays[2], ThreadPool::Get(threads));
  });
}

// Arrays: inputs, codes, scales, outputs; see Int8Linear.
NEXTWORD_EXPORT const char* nextword_c_int8_linear(const Array* arrays, int64_t threads) {
  return ErrorOf([&] {
    return nextword::Int8Linear(arrays[0], arrays[1], arrays[2], arrays[3],
                                ThreadPool::Get(threads));
  });
}

// Arrays: inputs, codes, scales, minimums, outputs; see PackedLinear.
NEXTWORD_EXPORT const char* nextword_c_packed_linear(const Array* arrays, int64_t bits,
                                                     int64_t zero_point, int64_t threads) {
  return ErrorOf([&] {
    return nextword::PackedLinear(arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], bits,
                                  zero_point, ThreadPool::Get(threads));
  });
}

// Arrays: inputs, positions, outputs, and the operands; see Step.
NEXTWORD_EXPORT const char* nextword_c_decode_step(
    const Array* arrays, int64_t num_arrays, int64_t num_caches, const int64_t* program,
    int64_t program_size, const float* factors, int64_t num_factors, const int64_t* widths,
    int64_t num_registers, int64_t result, int64_t threads) {
  return ErrorOf([&] {
    const nextword::Step step{program,
                              program_size,
                              factors,
                              num_factors,
                              widths,
                              num_registers,
                              result,
                              arrays[0],
                              arrays[1],
                              arrays[2],
                              num_caches,
                              {arrays + 3, arrays + num_arrays}};
    return nextword::RunStep(step, ThreadPool::Get(threads));
  });
}

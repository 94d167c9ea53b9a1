// Arrays and threads as the doors hand them over: `jax.ffi` in xla_handlers.cc, and plain C in
// c_functions.cc. What arrays must be like is checked behind the doors.

#ifndef NEXTWORD_ARRAY_H_
#define NEXTWORD_ARRAY_H_

#include <cstdint>
#include <functional>

namespace nextword {

// A dense array in row-major order. `described.py` writes it, too.
struct Array {
  enum Type : int64_t { kFloat32, kBFloat16, kFloat16, kUint8, kInt8, kInt32, kOther };
  static constexpr int64_t kMostDimensions = 4;  // an array of more is of the type kOther

  void* data;
  int64_t type;
  int64_t rank;
  int64_t shape[kMostDimensions];

  bool Is(Type wanted_type, int64_t wanted_rank) const {
    return type == wanted_type && rank == wanted_rank;
  }
  int64_t elements() const {
    int64_t product = 1;
    for (int64_t i = 0; i < rank; ++i) product *= shape[i];
    return product;
  }
  template <typename Element>
  Element* as() const {
    return static_cast<Element*>(data);
  }
};

// Threads that share the work of one call.
struct Threads {
  int64_t count;  // with the caller's
  // Runs a task on one of the others, sooner or later.
  std::function<void(std::function<void()>)> schedule;
};

}  // namespace nextword

#endif  // NEXTWORD_ARRAY_H_

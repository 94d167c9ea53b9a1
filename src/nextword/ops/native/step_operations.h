// The instructions of a step's program, and the memory that they work on.

#ifndef NEXTWORD_STEP_OPERATIONS_H_
#define NEXTWORD_STEP_OPERATIONS_H_

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "kernels.h"
#include "step.h"

namespace nextword {

// The memory of a step: registers of [tokens, width] floats, and the operands.
class Memory {
 public:
  Memory(const Step& step, int64_t num_threads)
      : step(step), tokens(step.rows() * step.length()), num_threads(num_threads) {
    int64_t size = 0;
    for (int64_t i = 0; i < step.num_registers; ++i) {
      starts_.push_back(size);
      size += AlignedFloats::Whole(tokens * std::max<int64_t>(step.widths[i], 0));
    }
    thread_local AlignedFloats kept;
    floats_ = (is_kept() ? kept : own_).Get(size);
  }

  bool IsRegister(int64_t number, int64_t width) const {
    return number >= 0 && number < step.num_registers && step.widths[number] == width;
  }

  bool IsArray(int64_t number, int64_t elements, Array::Type type) const {
    return number >= 0 && number < static_cast<int64_t>(step.operands.size()) &&
           step.operands[number].type == type && step.operands[number].elements() == elements;
  }

  bool IsFloats(int64_t number, int64_t elements) const {
    return IsArray(number, elements, Array::kFloat32) ||
           IsArray(number, elements, Array::kBFloat16);
  }

  bool IsCache(int64_t number, int64_t heads, int64_t width) const {
    return number < step.num_caches &&
           IsFloats(number, step.rows() * heads * step.capacity() * width);
  }

  float* row(int64_t number, int64_t token) const {
    return floats_ + starts_[number] + token * step.widths[number];
  }

  const Array& operand(int64_t number) const { return step.operands[number]; }

  // Returns an operand's floats in float32, null for the number -1.
  const float* Floats(int64_t number) {
    if (number == -1) return nullptr;
    const Array& operand = step.operands[number];
    if (operand.type == Array::kFloat32) return static_cast<const float*>(operand.data);
    std::vector<float>& converted = converted_[number];
    if (converted.empty()) {
      const auto* halves = static_cast<const uint16_t*>(operand.data);
      for (int64_t i = 0; i < operand.elements(); ++i) {
        const uint32_t bits = static_cast<uint32_t>(halves[i]) << 16;
        converted.emplace_back();
        std::memcpy(&converted.back(), &bits, sizeof bits);
      }
    }
    return converted.data();
  }

  // Returns where activations of a width are quantised.
  QuantizedRows* quantized(int64_t width) {
    thread_local std::map<std::pair<int64_t, int64_t>, std::unique_ptr<QuantizedRows>> kept;
    auto& rows = (is_kept() ? kept : own_quantized_)[{tokens, width}];
    if (rows == nullptr) rows = std::make_unique<QuantizedRows>(tokens, width);
    return rows.get();
  }

  const Step& step;
  const int64_t tokens;
  const int64_t num_threads;

 private:
  // Whether the thread keeps the memory for the next step: that of a long prompt is too much.
  bool is_kept() const { return tokens <= kTokensKept; }

  static constexpr int64_t kTokensKept = 16;

  std::vector<int64_t> starts_;
  AlignedFloats own_;
  std::map<std::pair<int64_t, int64_t>, std::unique_ptr<QuantizedRows>> own_quantized_;
  float* floats_;
  std::map<int64_t, std::vector<float>> converted_;
};

// The integers of an instruction, one after the other.
class Integers {
 public:
  Integers(const int64_t* begin, int64_t count) : next_(begin), end_(begin + count) {}

  int64_t Next() { return next_ < end_ ? *next_++ : (is_short_ = true, -2); }
  bool is_at_end() const { return next_ == end_ && !is_short_; }
  bool is_short() const { return is_short_; }

 private:
  const int64_t* next_;
  const int64_t* end_;
  bool is_short_ = false;
};

// One instruction, which works on a number of items independently of each other.
class Operation {
 public:
  virtual ~Operation() = default;
  // Returns whether all that it names is there and has the right size, and prepares it.
  virtual bool Prepare(Memory& memory) = 0;
  virtual int64_t count() const = 0;
  // Returns about how many multiplications an item takes.
  virtual int64_t cost() const = 0;
  virtual void Run(int64_t first, int64_t last) const = 0;
};

// Returns the operations of a program, none if it is malformed.
std::vector<std::unique_ptr<Operation>> Operations(const Step& step);

}  // namespace nextword

#endif  // NEXTWORD_STEP_OPERATIONS_H_

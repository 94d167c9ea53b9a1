// One decoding step through a stack of layers, as a program of a few kinds of instructions.
//
// Between two matrix products a step does so little that handing each piece over to the threads one
// by one would take longer than the work. Here the threads stay together for the whole step.

#ifndef NEXTWORD_STEP_H_
#define NEXTWORD_STEP_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace nextword {

// An array that instructions name by its number.
struct Operand {
  enum Type { kFloat32, kBFloat16, kFloat16, kUint8, kInt8, kOther };
  void* data;
  Type type;
  int64_t elements;
};

// What to compute, and where.
//
// `program` is a sequence of instructions: a code, the number of integers that follow, and these.
// Each instruction has two floats in `factors`, too. step_program.py writes them;
// step_operations.cc says what they mean.
struct Step {
  const int64_t* program;
  int64_t program_size;
  const float* factors;
  int64_t num_factors;
  const int64_t* widths;  // of each register: floats for each token
  int64_t num_registers;
  int64_t rows;
  int64_t length;            // new tokens of each row
  const int32_t* positions;  // [rows], of each row's first new token
  int64_t capacity;          // positions of a row in the caches
  const float* inputs;       // [rows * length, widths[0]], copied to register 0
  float* outputs;            // like inputs, copied from the register with the number `result`
  int64_t result;
  std::vector<Operand> operands;
};

// Runs a step on this thread and on others: `schedule(task)` must run a task on one of them, sooner
// or later. Returns what is wrong with the step, or nothing.
std::string RunStep(const Step& step, int64_t threads,
                    const std::function<void(std::function<void()>)>& schedule);

}  // namespace nextword

#endif  // NEXTWORD_STEP_H_

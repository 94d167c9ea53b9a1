// One decoding step through a stack of layers, as a program of a few kinds of instructions.
//
// Between two matrix products a step does so little that handing each piece over to the threads one
// by one would take longer than the work. Here the threads stay together for the whole step.

#ifndef NEXTWORD_STEP_H_
#define NEXTWORD_STEP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "array.h"

namespace nextword {

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
  int64_t result;   // number of a register
  Array inputs;     // float32 [rows, length, widths[0]], copied to register 0
  Array positions;  // int32 [rows], of each row's first new token
  Array outputs;    // like inputs, copied from the register `result`
  int64_t num_caches;  // 0 for layers without attention
  std::vector<Array> operands;  // named by their numbers; first the caches, which are changed

  int64_t rows() const { return inputs.shape[0]; }
  int64_t length() const { return inputs.shape[1]; }  // new tokens of each row
  int64_t capacity() const { return operands[0].shape[2]; }  // of a row in the caches
  int64_t position(int64_t row) const { return positions.as<int32_t>()[row]; }
};

// Runs a step. Returns what is wrong with it, or nothing.
std::string RunStep(const Step& step, const Threads& threads);

}  // namespace nextword

#endif  // NEXTWORD_STEP_H_

#include "step.h"

#include <algorithm>
#include <cstring>

#include "parallel.h"
#include "step_operations.h"

namespace nextword {
namespace {

// Multiplications that pay for handing over a phase, and for a part of it.
constexpr int64_t kSmallestPhase = 1 << 13;
constexpr int64_t kSmallestPart = 1 << 12;

Ranges RangesOf(const Operation& operation, int64_t threads) {
  const int64_t count = operation.count(), cost = std::max<int64_t>(operation.cost(), 1);
  if (count * cost < kSmallestPhase) threads = 1;
  return Ranges(count, threads, kSmallestPart / cost + 1);
}

std::string WrongShapes(const Step& step) {
  const auto& inputs = step.inputs;
  const auto& operands = step.operands;
  bool fits = inputs.Is(Array::kFloat32, 3) && step.outputs.Is(Array::kFloat32, 3) &&
              step.outputs.elements() == inputs.elements() &&
              step.positions.Is(Array::kInt32, 1) && step.positions.shape[0] == step.rows() &&
              step.num_registers > 0 && step.widths[0] == inputs.shape[2] &&
              step.num_caches <= static_cast<int64_t>(operands.size());
  for (int64_t i = 0; fits && i < step.num_caches; ++i) {
    fits = operands[i].rank == 4 && operands[i].shape[2] == step.capacity();
  }
  if (!fits) return "The shapes of a step's operands do not fit.";
  for (int64_t row = 0; step.num_caches > 0 && row < step.rows(); ++row) {
    if (step.position(row) < 0 || step.position(row) + step.length() > step.capacity()) {
      return "The step's tokens are beyond the cache.";
    }
  }
  return "";
}

}  // namespace

std::string RunStep(const Step& step, const Threads& threads) {
  const std::string error = WrongShapes(step);
  if (!error.empty()) return error;
  const auto operations = Operations(step);
  Memory memory(step, threads.count);
  const int64_t width = step.widths[0];
  bool fits = !operations.empty() && width > 0 && memory.IsRegister(step.result, width);
  std::vector<Ranges> phases;
  for (const auto& operation : operations) {
    fits = fits && operation->Prepare(memory);
    if (fits) phases.push_back(RangesOf(*operation, threads.count));
  }
  if (!fits) return "The step's program does not fit its operands.";
  const int64_t bytes = memory.tokens * width * static_cast<int64_t>(sizeof(float));
  std::memcpy(memory.row(0, 0), step.inputs.data, bytes);
  const auto part = [&](int64_t phase, int64_t first, int64_t last) {
    operations[phase]->Run(first, last);
  };
  RunPhases(phases, threads.count - 1, threads.schedule, part);
  std::memcpy(step.outputs.data, memory.row(step.result, 0), bytes);
  return "";
}

}  // namespace nextword

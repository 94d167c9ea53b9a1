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
Phase PhaseOf(const Operation& operation, int64_t threads) {
  const int64_t count = operation.count(), cost = std::max<int64_t>(operation.cost(), 1);
  if (threads < 2 || count < 2 || count * cost < kSmallestPhase) return {count, 0};
  const int64_t grain = std::max(count / (4 * threads), kSmallestPart / cost + 1);
  return {count, std::min(grain, (count + threads - 1) / threads)};
}

}  // namespace

std::string RunStep(const Step& step, int64_t threads,
                    const std::function<void(std::function<void()>)>& schedule) {
  for (int64_t row = 0; row < step.rows; ++row) {
    if (step.positions[row] < 0 || step.positions[row] + step.length > step.capacity) {
      return "The step's tokens are beyond the cache.";
    }
  }
  const auto operations = Operations(step);
  Memory memory(step);
  const int64_t width = step.num_registers > 0 ? step.widths[0] : -1;
  bool fits = !operations.empty() && width > 0 && memory.IsRegister(step.result, width);
  std::vector<Phase> phases;
  for (const auto& operation : operations) {
    fits = fits && operation->Prepare(memory);
    if (fits) phases.push_back(PhaseOf(*operation, threads));
  }
  if (!fits) return "The step's program does not fit its operands.";
  const int64_t bytes = memory.tokens * width * static_cast<int64_t>(sizeof(float));
  std::memcpy(memory.row(0, 0), step.inputs, bytes);
  RunPhases(phases, threads - 1, schedule, [&](int64_t phase, int64_t first, int64_t last) {
    operations[phase]->Run(first, last);
  });
  std::memcpy(step.outputs, memory.row(step.result, 0), bytes);
  return "";
}

}  // namespace nextword

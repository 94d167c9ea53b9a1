// Run the parts of one operation on the caller's thread and on those of a pool.

#ifndef NEXTWORD_PARALLEL_H_
#define NEXTWORD_PARALLEL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

namespace nextword {

// Calls `part(first, last)` for consecutive ranges that cover [0, count).
//
// `schedule(task)` must run `task` on some other thread, sooner or later. The caller works on the
// ranges, too, and waits only for ranges that another thread has begun: a pool whose threads are
// all busy, or all inside such calls themselves, slows this down but cannot block it.
//
// Args:
//   count: number of items.
//   grain: the most items in a range.
//   helpers: number of tasks to schedule.
template <typename Schedule, typename Part>
void ParallelFor(int64_t count, int64_t grain, int64_t helpers, const Schedule& schedule,
                 const Part& part) {
  const int64_t ranges = (count + grain - 1) / grain;
  if (helpers > ranges - 1) helpers = ranges - 1;
  if (helpers <= 0) {
    if (count > 0) part(int64_t{0}, count);
    return;
  }
  struct State {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
  };
  // Shared, because a task may start when the call is over.
  auto state = std::make_shared<State>();
  const Part* work = &part;
  auto run = [state, work, count, grain, ranges] {
    for (;;) {
      const int64_t range = state->next.fetch_add(1, std::memory_order_relaxed);
      if (range >= ranges) return;  // and `work` may be gone
      const int64_t first = range * grain;
      (*work)(first, first + grain < count ? first + grain : count);
      state->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t i = 0; i < helpers; ++i) schedule(run);
  run();
  for (int spins = 0; state->done.load(std::memory_order_acquire) < ranges; ++spins) {
    if (spins > 1000) std::this_thread::yield();
  }
}

}  // namespace nextword

#endif  // NEXTWORD_PARALLEL_H_

// Run the parts of one operation on the caller's thread and on those of a pool.

#ifndef NEXTWORD_PARALLEL_H_
#define NEXTWORD_PARALLEL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace nextword {

// How often a thread looks for work, or for the end of others' work, before it lets others run.
constexpr int kSpins = 4000;

// Tells the processor that the thread waits.
inline void Pause() {
#if defined(__x86_64__) && defined(__GNUC__)
  _mm_pause();
#endif
}

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

// Runs phases one after the other on the caller's thread and on those of a pool, which stay with it
// from phase to phase: handing over a phase costs less than a microsecond.
//
// As with `ParallelFor` the caller waits only for ranges that another thread has begun.
//
// Args:
//   phases: of each phase the number of items and the most of them in a range, 0 where the caller
//     does it alone.
//   helpers: number of tasks to schedule.
//   part: `part(phase, first, last)` works on a range of a phase's items.
struct Phase {
  int64_t count;
  int64_t grain;
};

template <typename Schedule, typename Part>
void RunPhases(const std::vector<Phase>& phases, int64_t helpers, const Schedule& schedule,
               const Part& part) {
  struct alignas(128) Counters {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
  };
  struct State {
    explicit State(const std::vector<Phase>& phases) : phases(phases), counters(phases.size()) {}
    std::vector<Phase> phases;
    std::vector<Counters> counters;
    std::atomic<int64_t> current{-1};  // the phase that may be helped with
  };
  // Shared, because a task may start when the call is over.
  auto state = std::make_shared<State>(phases);
  const Part* work = &part;
  const int64_t end = static_cast<int64_t>(phases.size());
  auto take_part = [work](State& state, int64_t phase) {
    const auto [count, grain] = state.phases[phase];
    const int64_t ranges = (count + grain - 1) / grain;
    Counters& counters = state.counters[phase];
    for (;;) {
      const int64_t range = counters.next.fetch_add(1, std::memory_order_relaxed);
      if (range >= ranges) return ranges;  // and `work` may be gone
      const int64_t first = range * grain;
      (*work)(phase, first, first + grain < count ? first + grain : count);
      counters.done.fetch_add(1, std::memory_order_release);
    }
  };
  auto help = [state, take_part, end] {
    int64_t last = -1;
    for (int spins = 0;; ++spins) {
      const int64_t phase = state->current.load(std::memory_order_acquire);
      if (phase == end) return;
      if (phase != last) {
        take_part(*state, last = phase);
        spins = 0;
      } else if (spins > kSpins) {
        std::this_thread::yield();
      } else {
        Pause();
      }
    }
  };
  for (int64_t i = 0; i < helpers; ++i) schedule(help);
  for (int64_t phase = 0; phase < end; ++phase) {
    const auto [count, grain] = phases[phase];
    if (grain == 0) {
      part(phase, int64_t{0}, count);
      continue;
    }
    state->current.store(phase, std::memory_order_release);
    const int64_t ranges = take_part(*state, phase);
    Counters& counters = state->counters[phase];
    for (int spins = 0; counters.done.load(std::memory_order_acquire) < ranges; ++spins) {
      if (spins > kSpins) {
        std::this_thread::yield();
      } else {
        Pause();
      }
    }
  }
  state->current.store(end, std::memory_order_release);
}

}  // namespace nextword

#endif  // NEXTWORD_PARALLEL_H_

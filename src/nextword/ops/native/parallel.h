// Run the parts of one operation on the caller's thread and on those of a pool.

#ifndef NEXTWORD_PARALLEL_H_
#define NEXTWORD_PARALLEL_H_

#include <algorithm>
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

// How items are handed out to threads: first a large range for each of them, since what is read in
// one piece comes faster from memory, then smaller ones for whoever is done, as threads are not
// equally fast.
class Ranges {
 public:
  // Args:
  //   count: number of items.
  //   threads: number of threads.
  //   smallest: the fewest items that are worth handing out.
  Ranges(int64_t count, int64_t threads, int64_t smallest) : count_(count), small_(count) {
    if (threads < 2 || count < 2 * smallest) return;
    small_ = std::max(count / (8 * threads), smallest);
    if (count < 2 * threads * smallest) return;
    num_large_ = threads;
    large_ = 3 * count / (4 * threads);
  }

  int64_t size() const {
    const int64_t rest = count_ - num_large_ * large_;
    return rest == 0 ? num_large_ : num_large_ + (rest + small_ - 1) / small_;
  }

  int64_t first(int64_t range) const {
    if (range < num_large_) return range * large_;
    return num_large_ * large_ + (range - num_large_) * small_;
  }

  int64_t last(int64_t range) const { return std::min(first(range + 1), count_); }

 private:
  int64_t count_, small_, num_large_ = 0, large_ = 0;
};

// Calls `part(first, last)` for ranges that cover all items.
//
// `schedule(task)` must run `task` on some other thread, sooner or later. The caller works on the
// ranges, too, and waits only for ranges that another thread has begun: a pool whose threads are
// all busy, or all inside such calls themselves, slows this down but cannot block it.
//
// Args:
//   ranges: the ranges.
//   helpers: number of tasks to schedule.
template <typename Schedule, typename Part>
void ParallelFor(const Ranges& ranges, int64_t helpers, const Schedule& schedule,
                 const Part& part) {
  struct State {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
  };
  // Shared, because a task may start when the call is over.
  auto state = std::make_shared<State>();
  const Part* work = &part;
  auto run = [state, work, ranges] {
    for (;;) {
      const int64_t range = state->next.fetch_add(1, std::memory_order_relaxed);
      if (range >= ranges.size()) return;  // and `work` may be gone
      (*work)(ranges.first(range), ranges.last(range));
      state->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t i = 0; i < std::min(helpers, ranges.size() - 1); ++i) schedule(run);
  run();
  for (int spins = 0; state->done.load(std::memory_order_acquire) < ranges.size(); ++spins) {
    if (spins > 1000) std::this_thread::yield();
  }
}

// Runs phases one after the other on the caller's thread and on those of a pool, which stay with it
// from phase to phase: handing over a phase costs less than a microsecond.
//
// As with `ParallelFor` the caller waits only for ranges that another thread has begun.
//
// Args:
//   phases: the ranges of each phase; of a phase that has but one, the caller takes it.
//   helpers: number of tasks to schedule.
//   part: `part(phase, first, last)` works on a range of a phase's items.
template <typename Schedule, typename Part>
void RunPhases(const std::vector<Ranges>& phases, int64_t helpers, const Schedule& schedule,
               const Part& part) {
  struct alignas(128) Counters {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
  };
  struct State {
    explicit State(const std::vector<Ranges>& phases) : phases(phases), counters(phases.size()) {}
    std::vector<Ranges> phases;
    std::vector<Counters> counters;
    std::atomic<int64_t> current{-1};  // the phase that may be helped with
  };
  // Shared, because a task may start when the call is over.
  auto state = std::make_shared<State>(phases);
  const Part* work = &part;
  const int64_t end = static_cast<int64_t>(phases.size());
  auto take_part = [work](State& state, int64_t phase) {
    const Ranges ranges = state.phases[phase];
    Counters& counters = state.counters[phase];
    for (;;) {
      const int64_t range = counters.next.fetch_add(1, std::memory_order_relaxed);
      if (range >= ranges.size()) return ranges.size();  // and `work` may be gone
      (*work)(phase, ranges.first(range), ranges.last(range));
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
    if (phases[phase].size() == 1) {
      part(phase, phases[phase].first(0), phases[phase].last(0));
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

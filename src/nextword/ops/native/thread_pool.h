// Threads of our own, for a caller that brings none.

#ifndef NEXTWORD_THREAD_POOL_H_
#define NEXTWORD_THREAD_POOL_H_

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>

#include "array.h"

namespace nextword {

// Threads that sleep while there is nothing to do, so that they take nothing from others' threads.
// There is one pool in a process, which lives until its end.
class ThreadPool {
 public:
  ThreadPool();

  // Returns threads, the caller's among them. There may be fewer of them than asked for.
  static Threads Get(int64_t count);

 private:
  void GrowTo(int64_t workers);
  void Schedule(std::function<void()> task);
  void Work();

  const pid_t process_;  // its threads are not there in a process that was forked from it
  std::mutex mutex_;
  std::condition_variable is_work_;
  std::deque<std::function<void()>> tasks_;
  int64_t workers_ = 0;
};

}  // namespace nextword

#endif  // NEXTWORD_THREAD_POOL_H_

#include "thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

namespace nextword {

ThreadPool::ThreadPool() : process_(getpid()) {}

Threads ThreadPool::Get(int64_t count) {
  static std::atomic<ThreadPool*> current{nullptr};
  ThreadPool* pool = current.load();
  if (pool == nullptr || pool->process_ != getpid()) {
    auto made = std::make_unique<ThreadPool>();
    // One that a fork left behind stays as it is: its lock may be held by a thread that is no more.
    pool = current.compare_exchange_strong(pool, made.get()) ? made.release() : current.load();
  }
  pool->GrowTo(count - 1);
  return {std::max<int64_t>(count, 1), [pool](std::function<void()> task) {
            pool->Schedule(std::move(task));
          }};
}

void ThreadPool::GrowTo(int64_t workers) {
  const std::lock_guard<std::mutex> lock(mutex_);
  while (workers_ < workers) {
    try {
      std::thread([this] { Work(); }).detach();
    } catch (const std::system_error&) {
      return;  // no more to be had, and the caller can do without
    }
    ++workers_;
  }
}

void ThreadPool::Schedule(std::function<void()> task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (workers_ == 0) return;  // the caller does all of it
    tasks_.push_back(std::move(task));
  }
  is_work_.notify_one();
}

void ThreadPool::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    is_work_.wait(lock, [this] { return !tasks_.empty(); });
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
}

}  // namespace nextword

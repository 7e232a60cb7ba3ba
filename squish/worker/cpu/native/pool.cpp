// One pool for the process, never destroyed: threads that sleep at exit hurt nobody. A forked child has none of them and
// computes alone.
#include "pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <mutex>
#include <thread>

namespace squish {
namespace {

// Looks for work before a thread sleeps: some 20 µs, and so longer than what lies between two products of a step.
constexpr int SPINS = 600;
constexpr int MOST = 1 << 20;  // chunks: each number of a ticket has 20 bits

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
}

struct Pool {
    std::mutex turn;
    std::atomic<uint64_t> ticket{0};  // generation | count | next: a chunk is taken by one exchange of all three
    std::atomic<Work> work{nullptr};
    std::atomic<void*> context{nullptr};
    std::atomic<int> left{0};
    std::atomic<uint32_t> jobs{0};  // what sleeping threads wait on
    std::atomic<int> wanted{1};
    int started = 0;

    // Takes one chunk and does it. The ticket tells whether what was read of the job was still that job's.
    bool take() {
        uint64_t seen = ticket.load(std::memory_order_acquire);
        for (;;) {
            const uint64_t next = seen & (MOST - 1), count = seen >> 20 & (MOST - 1);
            if (next >= count) return false;
            const Work job = work.load(std::memory_order_relaxed);
            void* const with = context.load(std::memory_order_relaxed);
            if (ticket.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
                job(with, (int)next);
                left.fetch_sub(1, std::memory_order_release);
                return true;
            }
        }
    }

    void serve(int number) {
        for (;;) {
            const uint32_t before = jobs.load(std::memory_order_acquire);
            bool worked = false;
            while (number < wanted.load(std::memory_order_relaxed) && take()) worked = true;
            if (worked) continue;
            int spins = 0;
            while (spins < SPINS && jobs.load(std::memory_order_relaxed) == before) pause(), spins++;
            if (spins == SPINS) jobs.wait(before, std::memory_order_acquire);
        }
    }

    void start() {
        for (; started + 1 < wanted.load(std::memory_order_relaxed); started++) {
            const int number = started + 1;
            std::thread([this, number] { serve(number); }).detach();
        }
    }
};

Pool*& current() {
    static Pool* pool = [] {
        // The child's copy of the pool has threads that do not exist, and perhaps a lock that nobody will open.
        pthread_atfork(nullptr, nullptr, [] { current() = new Pool; });
        return new Pool;
    }();
    return pool;
}

}  // namespace

void run(int count, Work work, void* context) {
    Pool& pool = *current();
    std::unique_lock turn(pool.turn, std::defer_lock);
    if (count <= 1 || count >= MOST || pool.wanted.load(std::memory_order_relaxed) <= 1 || !turn.try_lock()) {
        for (int chunk = 0; chunk < count; chunk++) work(context, chunk);
        return;
    }
    pool.start();
    pool.work.store(work, std::memory_order_relaxed);
    pool.context.store(context, std::memory_order_relaxed);
    pool.left.store(count, std::memory_order_relaxed);
    const uint64_t generation = (pool.ticket.load(std::memory_order_relaxed) >> 40) + 1;
    pool.ticket.store(generation << 40 | (uint64_t)count << 20, std::memory_order_release);
    pool.jobs.fetch_add(1, std::memory_order_release);
    pool.jobs.notify_all();
    while (pool.take()) {
    }
    for (int spins = 0; pool.left.load(std::memory_order_acquire) > 0; spins++) {
        pause();
        if (spins > SPINS) sched_yield();  // its core may be what the last chunk waits for
    }
}

void set_threads(int count) { current()->wanted.store(count < 1 ? 1 : count, std::memory_order_relaxed); }

int threads() { return current()->wanted.load(std::memory_order_relaxed); }

}  // namespace squish

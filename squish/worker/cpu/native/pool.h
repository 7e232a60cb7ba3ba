// The threads of every primitive here. `parallel(count, work)` calls work(0) … work(count - 1), each once, on the calling
// thread and on those of the pool that have time; it returns when all are done. Chunks are taken from one counter: a busy
// core takes fewer. Which thread computes a chunk must not change a number.
#pragma once

#include <cstdint>
#include <type_traits>

namespace squish {

using Work = void (*)(void* context, int chunk);

void run(int count, Work work, void* context);

template <class F>
void parallel(int count, F&& work) {
    using Function = std::remove_reference_t<F>;
    run(count, [](void* context, int chunk) { (*static_cast<Function*>(context))(chunk); }, (void*)&work);
}

// How many threads work, the caller among them. Affinity and quota are Python's business (threads.py); 1 until it is set.
void set_threads(int count);
int threads();

}  // namespace squish

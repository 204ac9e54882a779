// The part of GCC's OpenMP runtime (libgomp) that the kernels call, for the build with ThreadSanitizer, which
// does not see the synchronization in libgomp and would report every parallel region. Here threads
// synchronize only where OpenMP guarantees it: at the start and the end of a region, at barriers and in
// atomic sections. The chunks of a dynamic loop are assigned round-robin, which needs no synchronization and
// gives chunks to every thread even in a short loop. Archer annotates LLVM's runtime in this way; it needs
// clang and libomp, so it would test another compiler's code on another runtime than the module's.
#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace {

class Team {
  public:
    explicit Team(int threads) : size(threads) {}

    const int size;

    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        if (++arrived_ == size) {
            arrived_ = 0;
            ++generation_;
            all_there_.notify_all();
        } else {
            all_there_.wait(lock, [this, mine = generation_] { return generation_ != mine; });
        }
    }

  private:
    std::mutex mutex_;
    std::condition_variable all_there_;
    int arrived_ = 0;
    long generation_ = 0;
};

// One thread's part of a dynamic loop: `next` is the loop variable at the start of its next chunk, and `span`
// is how far the variable advances in a chunk.
struct Loop {
    long next, end, span;
};

// A thread's place in the region that it runs; by default it is outside of any region.
struct Member {
    Team* team = nullptr;
    int number = 0;
    Loop loop{};

    void begin(long start, long end, long step, long chunk) {
        if (!team || step < 1) std::abort();
        loop = {start + number * chunk * step, end, chunk * step};
    }

    bool take(long* first, long* last) {
        *first = loop.next;
        *last = std::min(loop.next + loop.span, loop.end);
        loop.next += team->size * loop.span;
        return *first < loop.end;
    }
};

thread_local Member self;
std::mutex atomic_section;

template <class Region>
void run(unsigned threads, Region region) {
    Team team(std::max(1, int(threads)));
    const auto as_member = [&](int number) {
        const Member outer = self;
        self = {&team, number, {}};
        region();
        self = outer;
    };
    std::vector<std::thread> others;
    for (int number = 1; number < team.size; ++number) others.emplace_back(as_member, number);
    as_member(0);
    for (std::thread& other : others) other.join();
}

}  // namespace

extern "C" {

int omp_get_thread_num() {
    return self.number;
}
int omp_get_num_threads() {
    return self.team ? self.team->size : 1;
}

void GOMP_parallel(void (*region)(void*), void* data, unsigned threads, unsigned) {
    run(threads, [=] { region(data); });
}

// A region that consists of one dynamic loop, which starts with the region.
void GOMP_parallel_loop_nonmonotonic_dynamic(void (*region)(void*), void* data, unsigned threads, long start,
                                             long end, long step, long chunk, unsigned) {
    run(threads, [=] {
        self.begin(start, end, step, chunk);
        region(data);
    });
}

bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long step, long chunk, long* first,
                                          long* last) {
    self.begin(start, end, step, chunk);
    return self.take(first, last);
}

bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last) {
    return self.take(first, last);
}

void GOMP_barrier() {
    if (self.team) self.team->wait();
}

void GOMP_loop_end() {
    GOMP_barrier();
}
void GOMP_loop_end_nowait() {}

void GOMP_atomic_start() {
    atomic_section.lock();
}
void GOMP_atomic_end() {
    atomic_section.unlock();
}

}  // extern "C"

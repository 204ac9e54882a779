#include "simt.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace simt {

// Not zero-initialized, because that part of the module's data is shared memory (races.cpp).
Index threadIdx{1, 0}, blockIdx{1, 0}, blockDim{1, 1}, gridDim{1, 1};

namespace {

constexpr size_t kStack = 128 * 1024, kStacks = kStack * kBlock * kCluster;

#ifdef __x86_64__
// Pushes the callee-saved registers and switches to another stack. Boost.Context has the same function, but
// it is a system package that each of these builds would need. `swapcontext` makes a system call at each
// switch.
extern "C" void vreid_simt_switch(void** save, void* resume);
asm(R"(
.text
.hidden vreid_simt_switch
.globl vreid_simt_switch
.type vreid_simt_switch, @function
vreid_simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size vreid_simt_switch, .-vreid_simt_switch
)");

struct Context {
    void* stack_pointer = nullptr;

    void prepare(char* stack, void (*entry)()) {
        void** top = reinterpret_cast<void**>(stack + kStack) - 2;
        *top = reinterpret_cast<void*>(entry);
        stack_pointer = top - 6;
    }
    void switch_to(Context& other) { vreid_simt_switch(&stack_pointer, other.stack_pointer); }
};
#else
struct Context {
    ucontext_t state;

    void prepare(char* stack, void (*entry)()) {
        getcontext(&state);
        state.uc_stack.ss_sp = stack;
        state.uc_stack.ss_size = kStack;
        state.uc_link = nullptr;
        makecontext(&state, entry, 0);
    }
    void switch_to(Context& other) { swapcontext(&state, &other.state); }
};
#endif

enum class State { ready, at_barrier, at_cluster_barrier, at_warp, done };

struct Thread {
    Context context;
    State state = State::done;
    const char* what = "";
    const char* file = "";
    int line = 0;
    Combine combine = nullptr;
    unsigned mask = 0;
    uint64_t sent = 0, result = 0;
    int64_t argument = 0;
};

// Allocated on the heap, because the module's zero-initialized data is shared memory (races.cpp).
struct Machine {
    Context scheduler;
    Thread all[kCluster * kBlock];
    Thread* threads = all;  // of the running block
    char* stacks;
    unsigned size = 0;  // threads of a block
    Place place{};
    bool running = false;
    const std::function<void()>* kernel = nullptr;
    char message[512] = "";
    bool failed = false;
    std::mutex lock;

    Machine()
        : stacks(static_cast<char*>(mmap(nullptr, kStacks, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
        if (stacks == MAP_FAILED) throw std::bad_alloc();
    }
};

Machine& machine() {
    static Machine& only = *new Machine;
    return only;
}

Thread& current() {
    return machine().threads[machine().place.thread];
}

void leave() {
    current().context.switch_to(machine().scheduler);
}

void wait_at(State state, const char* file, int line) {
    Thread& own = current();
    own.state = state;
    own.file = file;
    own.line = line;
    leave();
}

void run_thread() {
    (*machine().kernel)();
    current().state = State::done;
    leave();
}

void resume(unsigned number) {
    Machine& m = machine();
    m.place.thread = number;
    threadIdx.x = number % blockDim.x;
    threadIdx.y = number / blockDim.x;
    m.scheduler.switch_to(m.threads[number].context);
}

// If all lanes of the warp operation of thread `number` have called it, computes their results.
void finish_warp_operation(unsigned number) {
    Machine& m = machine();
    const unsigned first = number / kWarp * kWarp, mask = m.threads[number].mask;
    uint64_t sent[kWarp] = {};
    for (unsigned lane = 0; lane < kWarp; ++lane) {
        if (!(mask >> lane & 1)) continue;
        if (first + lane >= m.size) return;
        const Thread &thread = m.threads[first + lane], &own = m.threads[number];
        if (thread.state != State::at_warp || thread.mask != mask || thread.file != own.file ||
            thread.line != own.line)
            return;
        sent[lane] = thread.sent;
    }
    for (unsigned lane = 0; lane < kWarp; ++lane) {
        if (!(mask >> lane & 1)) continue;
        Thread& thread = m.threads[first + lane];
        thread.result = thread.combine(sent, mask, thread.argument);
        thread.state = State::ready;
    }
}

bool waits(const Thread& thread) {
    return thread.state == State::at_barrier || thread.state == State::at_cluster_barrier;
}

bool same_barrier(const Thread& a, const Thread& b) {
    return a.state == b.state && a.file == b.file && a.line == b.line;
}

// Called when no thread can continue: either all threads have reached one barrier, or the block is
// deadlocked. False at a barrier of the cluster.
bool pass_barrier() {
    Machine& m = machine();
    const auto end = m.threads + m.size;
    const auto lane = std::find_if(m.threads, end, [](auto& t) { return t.state == State::at_warp; });
    if (lane != end) {
        fail("%s:%d: %s: expected all lanes of mask %08x, got some", lane->file, lane->line, lane->what,
             lane->mask);
        return false;
    }
    const auto first = std::find_if(m.threads, end, waits);
    const auto here = std::count_if(m.threads, end, [&](auto& t) { return same_barrier(t, *first); });
    if (here != int64_t(m.size))
        fail("%s:%d: barrier reached by %d of the block's %u threads", first->file, first->line, int(here),
             m.size);
    if (m.failed || first->state == State::at_cluster_barrier) return false;
    ++m.place.epoch;
    for (auto thread = m.threads; thread != end; ++thread) thread->state = State::ready;
    return true;
}

// Runs a block of a cluster until it has ended or waits for the cluster.
void run_block(unsigned number, unsigned rank, const std::vector<unsigned>& order) {
    Machine& m = machine();
    m.place.block = number;
    blockIdx.x = number;
    m.threads = m.all + rank * m.size;
    while (!m.failed) {
        bool progress = false, finished = true;
        for (const unsigned t : order) {
            if (m.threads[t].state == State::ready) {
                resume(t);
                progress = true;
                if (m.failed) return;
            }
            finished = finished && m.threads[t].state == State::done;
        }
        if (finished || (!progress && !pass_barrier())) return;
    }
}

void run_cluster(unsigned number, const std::vector<unsigned>& ranks, const std::vector<unsigned>& order) {
    Machine& m = machine();
    const unsigned cluster = unsigned(ranks.size());
    const auto end = m.all + cluster * m.size;
    m.place.cluster = number;
    m.place.phase = m.place.epoch = 0;
    for (auto thread = m.all; thread != end; ++thread) {
        *thread = Thread();
        thread->state = State::ready;
        thread->context.prepare(m.stacks + (thread - m.all) * kStack, run_thread);
    }
    while (!m.failed) {
        for (const unsigned rank : ranks) run_block(number * cluster + rank, rank, order);
        const auto first = std::find_if(m.all, end, waits);
        if (first == end || m.failed) return;
        const auto here = std::count_if(m.all, end, [&](auto& t) { return same_barrier(t, *first); });
        if (here != end - m.all)
            fail("%s:%d: cluster barrier reached by %d of the cluster's %u blocks", first->file, first->line,
                 int(here / m.size), cluster);
        ++m.place.phase;
        for (auto thread = m.all; thread != end; ++thread) thread->state = State::ready;
    }
}

std::vector<unsigned> permutation(unsigned size, std::mt19937* generator) {
    std::vector<unsigned> order(size);
    std::iota(order.begin(), order.end(), 0u);
    if (generator) std::shuffle(order.begin(), order.end(), *generator);
    return order;
}

}  // namespace

const Place& here() {
    return machine().place;
}

bool running() {
    return machine().running;
}

bool on_a_fiber_stack(const void* address) {
    const char *stacks = machine().stacks, *byte = static_cast<const char*>(address);
    return byte >= stacks && byte < stacks + kStacks;
}

void fail(const char* format, ...) {
    Machine& m = machine();
    if (m.failed) return;
    m.failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(m.message, sizeof m.message, format, arguments);
    va_end(arguments);
}

const char* failure() {
    return machine().message;
}

bool launch(unsigned blocks, unsigned cluster, Index threads, const std::function<void()>& kernel) {
    Machine& m = machine();
    const std::lock_guard<std::mutex> alone(m.lock);
    m.failed = false;
    m.size = threads.x * threads.y;
    if (m.size == 0 || m.size > kBlock || blocks == 0) {
        fail("launch: expected at least 1 block of 1 to 1024 threads, got %u of %u", blocks, m.size);
        return false;
    }
    if (cluster == 0 || cluster > kCluster || blocks % cluster != 0) {
        fail("launch: expected clusters of 1 to 8 blocks that divide the grid, got %u of %u", cluster,
             blocks);
        return false;
    }
    const char* seed = getenv("VREID_SIMT_ORDER");
    std::mt19937 generator(seed ? unsigned(atoi(seed)) : 0u);
    const auto order = permutation(m.size, seed ? &generator : nullptr);
    const auto ranks = permutation(cluster, seed ? &generator : nullptr);
    m.kernel = &kernel;
    blockDim = threads;
    gridDim.x = blocks;
    ++m.place.launch;
    m.running = true;
    for (const unsigned number : permutation(blocks / cluster, seed ? &generator : nullptr)) {
        run_cluster(number, ranks, order);
        if (m.failed) break;
    }
    m.running = false;
    end_of_launch();
    return !m.failed;
}

void barrier(const char* file, int line) {
    wait_at(State::at_barrier, file, line);
}

void cluster_barrier(const char* file, int line) {
    wait_at(State::at_cluster_barrier, file, line);
}

uint64_t warp(Combine combine, unsigned mask, uint64_t sent, int64_t argument, const char* what,
              const char* file, int line) {
    const unsigned number = machine().place.thread;
    Thread& own = current();
    own.what = what;
    own.file = file;
    own.line = line;
    own.combine = combine;
    own.mask = mask;
    own.sent = sent;
    own.argument = argument;
    own.state = State::at_warp;
    if (!(mask >> number % kWarp & 1)) {
        fail("%s:%d: %s: lane %u is not in its own mask %08x", file, line, what, number % kWarp, mask);
        leave();
    }
    finish_warp_operation(number);
    if (own.state != State::ready) leave();
    return own.result;
}

}  // namespace simt

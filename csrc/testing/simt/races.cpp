// Detects data races: which threads accessed which memory since the last barrier. The kernels are compiled
// with GCC's instrumentation for ThreadSanitizer. Its calls are implemented here, because ThreadSanitizer's
// library does not support these fibers and barriers.
#include <unordered_map>

#include "simt.h"

// AddressSanitizer's runtime, if it is loaded (LD_PRELOAD): it knows the bounds of allocations.
extern "C" __attribute__((weak)) void* __asan_region_is_poisoned(void* begin, size_t size);

// The bounds of the module's zero-initialized data, defined by the linker: the kernels' shared memory.
extern "C" __attribute__((visibility("hidden"))) char __bss_start[], _end[];

namespace simt {
namespace {

struct Visit {
    Place place{};
    // A visit may stand for several threads: of one block, of one cluster, or of several.
    enum Spread : uint8_t { one_thread, one_block, one_cluster, grid } spread = one_thread;
};

struct Cell {
    Visit write, read, atomic;
    bool arriving = false;  // an asynchronous write has begun
};

constexpr uintptr_t kGranule = 2, kPage = 4096;  // bytes; the smallest element that kernels write is bf16

constexpr size_t kPagesKept = 1024;  // a Page takes 112 KB; visits of earlier launches have no effect

struct Page {
    Cell cells[kPage / kGranule];
};

struct Shadow {
    std::unordered_map<uintptr_t, Page> pages;
    uintptr_t last_number = 0;
    Page* last = nullptr;

    Cell& of(uintptr_t address) {
        const uintptr_t number = address / kPage;
        if (!last || number != last_number) {
            last = &pages[number];
            last_number = number;
        }
        return last->cells[address % kPage / kGranule];
    }
};

Shadow& shadow() {
    static Shadow& only = *new Shadow;
    return only;
}

bool ordered(const Visit& visit, const Place& now) {
    const Place& before = visit.place;
    if (before.launch != now.launch) return true;
    if (visit.spread == Visit::grid || before.cluster != now.cluster) return false;
    if (before.phase < now.phase) return true;
    if (visit.spread == Visit::one_cluster || before.block != now.block) return false;
    if (before.epoch < now.epoch) return true;
    return visit.spread == Visit::one_thread && before.thread == now.thread;
}

// The readers of a cell together with another one.
Visit joined(const Visit& visit, const Place& now) {
    const Place& before = visit.place;
    Visit both{now};
    if (before.launch != now.launch) return both;
    if (visit.spread == Visit::grid || before.cluster != now.cluster)
        both.spread = Visit::grid;
    else if (before.phase == now.phase) {
        if (visit.spread == Visit::one_cluster || before.block != now.block)
            both.spread = Visit::one_cluster;
        else if (before.epoch == now.epoch && !ordered(visit, now))
            both.spread = Visit::one_block;
    }
    return both;
}

void report(const char* what, const char* memory, const Visit& visit, const Place& now) {
    const Place& before = visit.place;
    fail("%s in %s memory by thread %u of block %u and thread %u of block %u with no barrier between", what,
         memory, before.thread, before.block, now.thread, now.block);
}

bool is_shared(uintptr_t address) {
    return address >= reinterpret_cast<uintptr_t>(__bss_start) && address < reinterpret_cast<uintptr_t>(_end);
}

void set_arriving(const void* pointer, size_t size, bool value) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer);
    for (uintptr_t address = begin; address < begin + size; address += kGranule)
        shadow().of(address).arriving = value;
}

}  // namespace

void end_of_launch() {
    if (shadow().pages.size() <= kPagesKept) return;
    shadow().last = nullptr;
    shadow().pages.clear();
}

void check_alignment(const void* pointer, size_t size) {
    if (reinterpret_cast<uintptr_t>(pointer) % size == 0) return;
    fail("an access of %zu bytes is not aligned to its size, by thread %u of block %u", size, here().thread,
         here().block);
}

void touch(const void* pointer, size_t size, Access access) {
    if (!running() || on_a_fiber_stack(pointer)) return;
    const Place& now = here();
    const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer);
    const bool shared = is_shared(begin);
    const char* memory = shared ? "shared" : "global";
    if (!shared && __asan_region_is_poisoned && __asan_region_is_poisoned(const_cast<void*>(pointer), size))
        return fail("AddressSanitizer: %s of %zu bytes outside every allocation, by thread %u of block %u",
                    access == Access::read ? "read" : "write", size, now.thread, now.block);
    for (uintptr_t address = begin / kGranule * kGranule; address < begin + size; address += kGranule) {
        Cell& cell = shadow().of(address);
        const Place& written = cell.write.place;
        // The blocks use the same memory as their shared memory, one after another.
        if (shared &&
            (written.launch != now.launch || written.block != now.block || written.phase != now.phase)) {
            if (access != Access::write)
                return fail("thread %u of block %u reads shared memory that the block has not written",
                            now.thread, now.block);
            cell = Cell();
        }
        if (cell.arriving && written.launch == now.launch)
            return fail("%s of %s memory by thread %u of block %u before a cp.async to it has arrived",
                        access == Access::read ? "read" : "write", memory, now.thread, now.block);
        if (!ordered(cell.write, now))
            return report(access == Access::read ? "write and read" : "two writes", memory, cell.write, now);
        if (access != Access::atomic && !ordered(cell.atomic, now))
            return report("atomic and other access", memory, cell.atomic, now);
        if (access == Access::read) {
            cell.read = joined(cell.read, now);
            continue;
        }
        if (!ordered(cell.read, now)) return report("read and write", memory, cell.read, now);
        if (access == Access::atomic) {
            cell.atomic = joined(cell.atomic, now);
        } else {
            cell.write = Visit{now};
            cell.read = cell.atomic = Visit();
        }
    }
}

void begin_write(const void* pointer, size_t size) {
    touch(pointer, size, Access::write);
    set_arriving(pointer, size, true);
}

void end_write(const void* pointer, size_t size) {
    set_arriving(pointer, size, false);
    touch(pointer, size, Access::write);
}

int64_t atomic_max(int64_t* address, int64_t value) {
    check_alignment(address, sizeof value);
    touch(address, sizeof value, Access::atomic);
    const int64_t before = *address;
    if (before < value) *address = value;
    return before;
}

}  // namespace simt

extern "C" {

void __tsan_init() {}

#define VREID_SIMT_ACCESS(name, size, access)             \
    void __tsan_##name##size(void* address) {             \
        simt::touch(address, size, simt::Access::access); \
    }
#define VREID_SIMT_ACCESSES(size)                 \
    VREID_SIMT_ACCESS(read, size, read)           \
    VREID_SIMT_ACCESS(write, size, write)         \
    VREID_SIMT_ACCESS(unaligned_read, size, read) \
    VREID_SIMT_ACCESS(unaligned_write, size, write)
VREID_SIMT_ACCESSES(1)
VREID_SIMT_ACCESSES(2)
VREID_SIMT_ACCESSES(4)
VREID_SIMT_ACCESSES(8)
VREID_SIMT_ACCESSES(16)

void __tsan_read_range(void* address, unsigned long size) {
    simt::touch(address, size, simt::Access::read);
}
void __tsan_write_range(void* address, unsigned long size) {
    simt::touch(address, size, simt::Access::write);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}

// Who touched which memory since the last barrier. The kernels are compiled with GCC's instrumentation for
// ThreadSanitizer; its calls end here rather than in that library, which knows nothing of fibers and
// barriers.
#include <unordered_map>

#include "simt.h"

// AddressSanitizer's runtime, where one is loaded (LD_PRELOAD): knows where allocations end.
extern "C" __attribute__((weak)) void* __asan_region_is_poisoned(void* begin, size_t size);

// The module's zero-initialised data, placed by the linker: the kernels' static shared memory.
extern "C" __attribute__((visibility("hidden"))) char __bss_start[], _end[];

namespace simt {
namespace {

struct Visit {
    uint32_t launch = 0, block = 0, epoch = 0, warp_epoch = 0;
    uint32_t thread = 0;
    // How far the threads that it stands for are spread.
    enum Spread : uint8_t { thread_only, one_warp, one_block, grid } spread = thread_only;
    bool atomic = false;
};

struct Cell {
    Visit write, read;
};

constexpr uintptr_t kGranule = 2, kPage = 4096;  // bytes; nothing but bf16 and wider is ever written

constexpr size_t kPagesKept = 1024;  // a page takes 80 KB; what is left of earlier launches is harmless

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

bool ordered(const Visit& before, const Visit& now) {
    if (before.launch != now.launch) return true;
    if (before.spread == Visit::grid || before.block != now.block) return false;
    if (before.epoch < now.epoch) return true;
    if (before.spread == Visit::one_block) return false;
    if (before.spread == Visit::thread_only && before.thread == now.thread) return true;
    return before.thread / kWarp == now.thread / kWarp && before.warp_epoch < now.warp_epoch;
}

// The readers of a cell, with one more.
Visit joined(const Visit& before, Visit now) {
    if (before.launch != now.launch) return now;
    if (before.spread == Visit::grid || before.block != now.block) {
        now.spread = Visit::grid;
    } else if (before.epoch == now.epoch) {
        const bool same_warp =
            before.spread != Visit::one_block && before.thread / kWarp == now.thread / kWarp;
        const bool same_thread = before.spread == Visit::thread_only && before.thread == now.thread;
        now.spread = same_thread ? Visit::thread_only : same_warp ? Visit::one_warp : Visit::one_block;
    }
    return now;
}

void complain(const char* what, const char* memory, const Visit& before, const Visit& now) {
    fail("%s in %s memory by thread %u of block %u and thread %u of block %u with no barrier between", what,
         memory, before.thread, before.block, now.thread, now.block);
}

bool is_static_shared(uintptr_t address) {
    return address >= reinterpret_cast<uintptr_t>(__bss_start) && address < reinterpret_cast<uintptr_t>(_end);
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
    const Place& place = here();
    Visit now;
    now.launch = place.launch;
    now.block = place.block;
    now.epoch = place.epoch;
    now.warp_epoch = place.warp_epoch;
    now.thread = place.thread;
    now.atomic = access == Access::atomic;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer);
    const bool shared = is_static_shared(begin) || is_dynamic_shared(pointer);
    const char* memory = shared ? "shared" : "global";
    if (!shared && __asan_region_is_poisoned && __asan_region_is_poisoned(const_cast<void*>(pointer), size))
        return fail("AddressSanitizer: %s of %zu bytes outside every allocation, by thread %u of block %u",
                    access == Access::read ? "read" : "write", size, now.thread, now.block);
    for (uintptr_t address = begin / kGranule * kGranule; address < begin + size; address += kGranule) {
        Cell& cell = shadow().of(address);
        // Every block has a shared memory of its own, here in one place.
        if (shared && (cell.write.launch != now.launch || cell.write.block != now.block)) {
            if (access != Access::write)
                return fail("thread %u of block %u reads shared memory that the block has not written",
                            now.thread, now.block);
            cell = Cell();
        }
        const bool both_atomic = cell.write.atomic && now.atomic;
        if (!both_atomic && !ordered(cell.write, now))
            return complain(access == Access::read ? "write and read" : "two writes", memory, cell.write,
                            now);
        if (access == Access::read) {
            cell.read = joined(cell.read, now);
        } else {
            if (!ordered(cell.read, now)) return complain("read and write", memory, cell.read, now);
            cell.write = now;
            cell.read = Visit();
        }
    }
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

// cp.async on the host: the bytes arrive when the thread waits for their group, and until then nothing may
// touch their target.
#include <cstring>
#include <deque>
#include <vector>

#include "simt.h"

namespace simt {
namespace {

struct Copy {
    void* to;
    const void* from;
    size_t size, read;  // bytes that are written, and those of them that are read; the others are zero
};

struct Groups {
    uint32_t launch = 0, block = 0;
    std::vector<Copy> open;  // issued, not committed
    std::deque<std::vector<Copy>> committed;
};

// On the heap, because the module's zero-initialized data is shared memory (races.cpp).
Groups& groups() {
    static auto& all = *new std::vector<Groups>(kBlock);
    Groups& own = all[here().thread];
    if (own.launch != here().launch || own.block != here().block) {
        own = Groups();
        own.launch = here().launch;
        own.block = here().block;
    }
    return own;
}

}  // namespace

void copy_async(void* to, const void* from, size_t size, size_t read) {
    if (size != 16 || read > size) fail("cp.async: expected 16 bytes, got %zu, %zu of them read", size, read);
    check_alignment(to, size);
    check_alignment(from, size);
    if (read) touch(from, read, Access::read);
    begin_write(to, size);
    groups().open.push_back({to, from, size, read});
}

void commit_copies() {
    Groups& own = groups();
    own.committed.push_back(std::move(own.open));
    own.open.clear();
}

void wait_for_copies(size_t pending) {
    Groups& own = groups();
    for (; own.committed.size() > pending; own.committed.pop_front()) {
        for (const Copy& copy : own.committed.front()) {
            end_write(copy.to, copy.size);
            memset(copy.to, 0, copy.size);
            if (copy.read) memcpy(copy.to, copy.from, copy.read);
        }
    }
}

}  // namespace simt

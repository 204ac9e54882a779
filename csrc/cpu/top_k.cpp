// The k nearest items of every query, from tiles of keys that come in ascending order of the gallery index.
//
// Each query has a list of candidates: the items whose keys may, within the error, be among the k smallest. A
// full list is cut at the k-th smallest key plus twice the error. If it is still full because of ties, the
// distances in double are computed at once. Otherwise they are computed at the end, for slightly more than k
// items.
#include <omp.h>

#include "cpu/double_distance.h"
#include "cpu/kernels.h"
#include "cpu/tile.h"

namespace vreid {
namespace VREID_ISA {
namespace {

struct Candidate {
    double value;  // the key, or the distance once it is computed
    int64_t index;
    float key;
};

inline bool before(const Candidate& a, const Candidate& b) {
    return a.value < b.value || (a.value == b.value && a.index < b.index);
}

inline void swap(Candidate& a, Candidate& b) {
    const Candidate t = a;
    a = b;
    b = t;
}

inline void sift_down(Candidate* heap, int64_t root, int64_t size) {
    for (int64_t child; (child = 2 * root + 1) < size; root = child) {
        if (child + 1 < size && before(heap[child], heap[child + 1])) ++child;
        if (!before(heap[root], heap[child])) return;
        swap(heap[root], heap[child]);
    }
}

// Heap sort: no recursion, no std template (see simd.h), and no slow input order.
void sort(Candidate* list, int64_t size) {
    for (int64_t root = size / 2; root-- > 0;) sift_down(list, root, size);
    for (int64_t last = size; last-- > 1;) {
        swap(list[0], list[last]);
        sift_down(list, 0, last);
    }
}

class List {
  public:
    List(const TopK& op, int64_t row, Candidate* scratch)
        : op_(op),
          row_(row),
          keys_(op.keys + row * op.capacity),
          index_(op.index + row * op.capacity),
          size_(op.size[row]),
          limit_(op.limit[row]),
          scratch_(scratch) {}

    float limit() const { return limit_; }

    void add(float key, int64_t item) {
        if (!(key <= limit_)) return;
        keys_[size_] = key;
        index_[size_] = item;
        if (++size_ < op_.capacity) return;
        cut();
        if (size_ > op_.capacity - op_.capacity / 4) settle();
    }

    // Drops the candidates that cannot be among the k nearest any more; copies the others to `scratch_`.
    void cut() {
        for (int64_t n = 0; n < size_; ++n) scratch_[n] = {double(keys_[n]), index_[n], keys_[n]};
        if (size_ <= op_.k) return;
        sort(scratch_, size_);
        limit_ = scratch_[op_.k - 1].key + 2 * op_.error[row_];
        while (scratch_[size_ - 1].key > limit_) --size_;
        write();
    }

    // Sorts the candidates in `scratch_` by distance and keeps k of them.
    void settle() {
        for (int64_t n = 0; n < size_; ++n)
            scratch_[n].value = distance(op_.features, row_, scratch_[n].index);
        sort(scratch_, size_);
        if (size_ < op_.k) return;
        size_ = op_.k;
        limit_ = scratch_[0].key;
        for (int64_t n = 1; n < size_; ++n) limit_ = scratch_[n].key > limit_ ? scratch_[n].key : limit_;
        limit_ += 2 * op_.error[row_];
        write();
    }

    int64_t size() const { return size_; }

    void save() const {
        op_.size[row_] = size_;
        op_.limit[row_] = limit_;
    }

  private:
    void write() {
        for (int64_t n = 0; n < size_; ++n) {
            keys_[n] = scratch_[n].key;
            index_[n] = scratch_[n].index;
        }
    }

    const TopK& op_;
    const int64_t row_;
    float* const keys_;
    int64_t* const index_;
    int64_t size_;
    float limit_;
    Candidate* const scratch_;
};

// Updates row `row` of the op, which is row `line` of the part.
void update(const TopK& op, const Tile& part, int64_t line, int64_t row, Candidate* scratch) {
    List list(op, row, scratch);
    FloatVector largest = broadcast<float>(op.largest[row]);
    for_pieces<float>(part, line, [&](int64_t begin, int size, const float* keys) {
        for (int c = 0; c < size; c += Lanes<float>::N) {
            const FloatVector key = load(keys + c);
            largest = key > largest ? key : largest;
            if (!any(key <= list.limit())) continue;
            const int end = size - c < Lanes<float>::N ? size - c : Lanes<float>::N;
            for (int j = c; j < c + end; ++j) list.add(keys[j], part.offset + begin + j);
        }
    });
    list.save();
    float most = largest[0];
    for (int j = 1; j < Lanes<float>::N; ++j) most = largest[j] > most ? largest[j] : most;
    op.largest[row] = most;
}

void finish(const TopKResult& op, int64_t row, Candidate* scratch) {
    List list(op.lists, row, scratch);
    list.cut();
    list.settle();
    for (int64_t n = 0; n < list.size() && n < op.lists.k; ++n) {
        op.index[row * op.stride + n] = scratch[n].index;
        op.distance[row * op.stride + n] = scratch[n].value;
    }
}

}  // namespace

Status top_k(const TopK& op) {
    const int64_t bytes = op.capacity * int64_t(sizeof(Candidate));
    return for_parts(op.tile, op.threads, bytes, [&](const Tile& part, int64_t top, char* memory) {
        for (int64_t line = 0; line < part.Q; ++line)
            update(op, part, line, top + line, reinterpret_cast<Candidate*>(memory));
    });
}

Status top_k_result(const TopKResult& op) {
    const Scratch scratch(op.lists.threads, op.lists.capacity * int64_t(sizeof(Candidate)));
    if (!scratch) return Status::out_of_memory;
#pragma omp parallel for num_threads(op.lists.threads) schedule(dynamic, 8)
    for (int64_t row = 0; row < op.lists.tile.Q; ++row)
        finish(op, row, scratch.of<Candidate>(omp_get_thread_num()));
    return Status::ok;
}

}  // namespace VREID_ISA
}  // namespace vreid

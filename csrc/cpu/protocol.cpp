// The evaluation protocol: matches of persons through a hash table, and the scores of sorted ranks. One
// thread: the start of a second takes as long as this work for thousands of queries.
#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/memory.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// The groups of equal numbers in the order of their first element; open addressing.
class Groups {
  public:
    static int64_t capacity(int64_t numbers) {
        int64_t slots = 16;
        while (slots < 2 * numbers) slots *= 2;
        return slots;
    }
    Groups(int64_t* slots, const int64_t* numbers, int64_t* groups, int64_t capacity)
        : slots_(slots), numbers_(numbers), groups_(groups), mask_(uint64_t(capacity) - 1) {
        std::fill(slots, slots + capacity, -1);
    }
    // The group of a number, or -1.
    int64_t find(int64_t number) const {
        const int64_t n = *slot(number);
        return n < 0 ? -1 : groups_[n];
    }
    // Adds numbers[n] and sets groups[n].
    void add(int64_t n) {
        int64_t* place = slot(numbers_[n]);
        groups_[n] = *place < 0 ? size_++ : groups_[*place];
        if (*place < 0) *place = n;
    }
    int64_t size() const { return size_; }

  private:
    // The slot that has the place of an equal number, or the free slot for it.
    int64_t* slot(int64_t number) const {
        uint64_t hash = uint64_t(number) * 0x9e3779b97f4a7c15u;
        for (hash ^= hash >> 32;; ++hash) {
            int64_t* place = slots_ + (hash & mask_);
            if (*place < 0 || numbers_[*place] == number) return place;
        }
    }
    int64_t* slots_;
    const int64_t* numbers_;
    int64_t* groups_;
    uint64_t mask_;
    int64_t size_ = 0;
};

// Sets `order`, `first` and `last`.
Status sort_by_person(const Matches& op) {
    const int64_t capacity = Groups::capacity(op.G);
    const Scratch memory(1, (capacity + 2 * op.G + 1) * int64_t(sizeof(int64_t)));
    if (!memory) return Status::out_of_memory;
    int64_t *slots = memory.of<int64_t>(0), *group = slots + capacity, *end = group + op.G;
    Groups groups(slots, op.gallery, group, capacity);
    for (int64_t n = 0; n < op.G; ++n) groups.add(n);
    std::fill(end, end + groups.size() + 1, 0);
    for (int64_t n = 0; n < op.G; ++n) ++end[group[n] + 1];
    for (int64_t g = 0; g < groups.size(); ++g) end[g + 1] += end[g];
    for (int64_t i = 0; i < op.Q; ++i) {
        const int64_t g = op.query[i] == -1 ? -1 : groups.find(op.query[i]);
        op.first[i] = g < 0 ? 0 : end[g];
        op.last[i] = g < 0 ? 0 : end[g + 1];
    }
    for (int64_t n = 0; n < op.G; ++n) op.order[end[group[n]]++] = n;
    return Status::ok;
}

inline bool removed(const Matches& op, int64_t i, int64_t item) {
    if (op.itself && op.itself[i] == item) return true;
    for (int64_t r = 0; r < op.rules; ++r) {
        const bool equal = op.query_label[r * op.Q + i] == op.gallery_label[r * op.G + item];
        if (equal == op.same[r]) return true;
    }
    return false;
}

// Calls positive(item) and left(item) for the items of query i, each in ascending order.
template <class Positive, class Left>
inline void for_items(const Matches& op, int64_t i, Positive positive, Left left) {
    int64_t other = op.itself ? op.itself[i] : -1;  // of another person
    if (other >= 0 && op.gallery[other] == op.query[i]) other = -1;
    for (int64_t n = op.first[i]; n < op.last[i]; ++n) {
        const int64_t item = op.order[n];
        if (!removed(op, i, item)) {
            positive(item);
            continue;
        }
        if (other >= 0 && other < item) left(other), other = -1;
        left(item);
    }
    if (other >= 0) left(other);
}

// `ranks` has room for the positives of the query.
void score(const RankScores& op, int64_t i, int64_t* ranks) {
    const int64_t P = op.start[i + 1] - op.start[i];
    for (int64_t p = 0; p < P; ++p) ranks[p] = op.counts[op.start[i] + p] + 1;
    std::sort(ranks, ranks + P);
    double total = 0;
    for (int64_t p = 0; p < P; ++p) {
        double precision = double(p + 1) / double(ranks[p]);
        if (op.trapezoid) {
            const double before = ranks[p] > 1 ? double(p) / double(ranks[p] - 1) : 1;
            precision = (before + precision) / 2;
        }
        total += precision;
    }
    op.ap[i] = total / double(P);  // 0 / 0: NaN marks a query without a positive
    op.inp[i] = double(P) / double(P ? ranks[P - 1] : 0);
    op.first[i] = P ? ranks[0] : 0;
}

}  // namespace

Status count_matches(const Matches& op) {
    if (sort_by_person(op) == Status::out_of_memory) return Status::out_of_memory;
    int64_t positives = 0, left_out = 0;
    op.start[0] = op.left_start[0] = 0;
    for (int64_t i = 0; i < op.Q; ++i) {
        for_items(op, i, [&](int64_t) { ++positives; }, [&](int64_t) { ++left_out; });
        op.start[i + 1] = positives;
        op.left_start[i + 1] = left_out;
    }
    return Status::ok;
}

Status matches(const Matches& op) {
    int64_t positives = 0, left_out = 0;
    for (int64_t i = 0; i < op.Q; ++i) {
        for_items(
            op, i,
            [&](int64_t item) {
                op.row[positives] = i;
                op.index[positives++] = item;
            },
            [&](int64_t item) { op.left[left_out++] = item; });
    }
    return Status::ok;
}

Status rank_scores(const RankScores& op) {
    int64_t most = 0;
    for (int64_t i = 0; i < op.Q; ++i) most = std::max(most, op.start[i + 1] - op.start[i]);
    const Scratch memory(1, most * int64_t(sizeof(int64_t)));
    if (!memory) return Status::out_of_memory;
    for (int64_t i = 0; i < op.Q; ++i) score(op, i, memory.of<int64_t>(0));
    return Status::ok;
}

}  // namespace VREID_ISA
}  // namespace vreid

// Distances of mined pairs, and their gradient. Formulas: vreid_ext/ops/mining.py.
#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "cpu/row_distance.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
Status distances_of(const MinedDistance& op) {
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t i = 0; i < op.x.N; ++i) mined_distances<T>(op, i);
    return Status::ok;
}

// A pair from the view of one of its rows. The gradient of row u with scale s is
//     s sum_pairs factor (u s - other s' - shrink u s)
template <class A>
struct Partner {
    int64_t other;
    A factor, shrink;
};

// The partners of all rows, sorted by row and within a row by pair, for any number of threads.
template <class A>
struct Partners {
    Partner<A>* list;
    int64_t* begin;  // (rows + 1)
};

template <class T>
class PairGradient {
    using A = Acc<T>;

  public:
    explicit PairGradient(const MinedDistanceBackward& op)
        : op_(op),
          ref_(candidates(op.x, op.ref)),
          pairs_(op.M * op.x.N),
          memory_(1, 2 * pairs_ * int64_t(sizeof(Partner<A>)) +
                         (op.x.N + ref_.N + 2) * int64_t(sizeof(int64_t) + sizeof(A))) {}

    Status run() {
        if (!memory_) return Status::out_of_memory;
        Partner<A>* lists = memory_.of<Partner<A>>(0);
        int64_t* begins = reinterpret_cast<int64_t*>(lists + 2 * pairs_);
        x_scale_ = reinterpret_cast<A*>(begins + op_.x.N + ref_.N + 2);
        ref_scale_ = op_.ref.data ? x_scale_ + op_.x.N : x_scale_;
        scales(op_.x, x_scale_);
        if (op_.ref.data) {
            scales(op_.ref, ref_scale_);
            if (op_.dx)
                write(op_.x, x_scale_, ref_, ref_scale_, sorted(lists, begins, op_.x.N, true, false), op_.dx);
            if (op_.dref)
                write(op_.ref, ref_scale_, op_.x, x_scale_, sorted(lists, begins, ref_.N, false, true),
                      op_.dref);
        } else if (op_.dx) {
            write(op_.x, x_scale_, op_.x, x_scale_, sorted(lists, begins, op_.x.N, true, true), op_.dx);
        }
        return Status::ok;
    }

  private:
    void scales(const Rows& rows, A* scale) const {
        if (op_.metric != Metric::cosine) {  // without the cost of a parallel region
            for (int64_t i = 0; i < rows.N; ++i) scale[i] = 1;
            return;
        }
#pragma omp parallel for num_threads(op_.threads) schedule(static)
        for (int64_t i = 0; i < rows.N; ++i) scale[i] = row_scale(row<T>(rows, i), rows.D, Metric::cosine);
    }

    // Calls f(anchor, candidate, factor, shrink) for every pair with a gradient.
    template <class F>
    void for_pairs(F f) const {
        const A *grad = static_cast<const A*>(op_.grad), *distance = static_cast<const A*>(op_.distance);
        for (int64_t pair = 0; pair < pairs_; ++pair) {
            const int64_t i = pair % op_.x.N, j = op_.index[pair];
            const A d = distance[pair];
            if (j < 0 || d == 0) continue;
            if (op_.metric == Metric::cosine) {
                if (x_scale_[i] != 0 && ref_scale_[j] != 0) f(i, j, grad[pair], d);
            } else {
                f(i, j, op_.metric == Metric::squared ? 2 * grad[pair] : grad[pair] / d, A(0));
            }
        }
    }

    Partners<A> sorted(Partner<A>* list, int64_t* begin, int64_t rows, bool anchors, bool chosen) const {
        memset(begin, 0, size_t(rows + 1) * sizeof(int64_t));
        for_pairs([&](int64_t i, int64_t j, A, A) {
            begin[i + 1] += anchors;
            if (chosen) ++begin[j + 1];
        });
        for (int64_t t = 0; t < rows; ++t) begin[t + 1] += begin[t];
        // Filling moves each `begin` to the end of its row, which is the begin of the next row.
        for_pairs([&](int64_t i, int64_t j, A factor, A shrink) {
            if (anchors) list[begin[i]++] = {j, factor, shrink};
            if (chosen) list[begin[j]++] = {i, factor, shrink};
        });
        for (int64_t t = rows; t > 0; --t) begin[t] = begin[t - 1];
        begin[0] = 0;
        return {list, begin};
    }

    void write(const Rows& rows, const A* scale, const Rows& others, const A* other_scale,
               const Partners<A>& partners, void* gradient) const {
        const int64_t D = rows.D, block = 4 * Lanes<T>::N;
#pragma omp parallel for num_threads(op_.threads) schedule(static, 4)
        for (int64_t t = 0; t < rows.N; ++t) {
            const T* x = row<T>(rows, t);
            T* target = static_cast<T*>(gradient) + t * D;
            const Partner<A>*first = partners.list + partners.begin[t],
                  *last = partners.list + partners.begin[t + 1];
            const auto sum = [&](int64_t d, auto part, auto& total) {
                constexpr int count = sizeof(total) / sizeof(total[0]);
                Vec<T> u[count];
                for (int k = 0; k < count; ++k) u[k] = part.load(x + d + k * Lanes<T>::N) * scale[t];
                for (const Partner<A>* p = first; p < last; ++p) {
                    const T* other = row<T>(others, p->other) + d;
                    for (int k = 0; k < count; ++k) {
                        const Vec<T> v = part.load(other + k * Lanes<T>::N) * other_scale[p->other];
                        total[k] += p->factor * (u[k] - v - p->shrink * u[k]);
                    }
                }
                for (int k = 0; k < count; ++k) part.store(target + d + k * Lanes<T>::N, total[k] * scale[t]);
            };
            int64_t d = 0;
            for (; d + block <= D; d += block) {
                Vec<T> total[4]{};
                sum(d, Whole{}, total);
            }
            for_vectors<T>(D - d, [&](int64_t rest, auto part) {
                Vec<T> total[1]{};
                sum(d + rest, part, total);
            });
        }
    }

    const MinedDistanceBackward& op_;
    const Rows& ref_;
    const int64_t pairs_;
    const Scratch memory_;
    A *x_scale_ = nullptr, *ref_scale_ = nullptr;
};

}  // namespace

Status mined_distance(const MinedDistance& op) {
    return dispatch(op.x.dtype, [&](auto element) { return distances_of<decltype(element)>(op); });
}

Status mined_distance_backward(const MinedDistanceBackward& op) {
    return dispatch(op.x.dtype, [&](auto element) { return PairGradient<decltype(element)>(op).run(); });
}

}  // namespace VREID_ISA
}  // namespace vreid

// Farthest and nearest row of the same identity. Formulas: vreid_ext/ops/mining.py.
#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "cpu/row_distance.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
Status identity(const IdentityHard& op) {
    using A = Acc<T>;
    const int64_t N = op.x.N, D = op.x.D;
    const Scratch memory(1, N * int64_t(sizeof(A)));
    if (!memory) return Status::out_of_memory;
    A* scale = memory.of<A>(0);
#pragma omp parallel num_threads(op.threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N; ++i) scale[i] = row_scale(row<T>(op.x, i), D, op.metric);
#pragma omp for schedule(dynamic, 4)
        for (int64_t place = 0; place < N; ++place) {
            const int64_t i = op.order[place], label = op.labels[i];
            int64_t first = place;
            while (first > 0 && op.labels[op.order[first - 1]] == label) --first;
            A far = 0, near = 0;
            int64_t farthest = -1, nearest = -1;
            for (int64_t p = first; p < N && op.labels[op.order[p]] == label; ++p) {
                const int64_t j = op.order[p];
                if (j == i && !op.include_self) continue;
                const A d = distance(row<T>(op.x, i), scale[i], row<T>(op.x, j), scale[j], D, op.metric);
                if (farthest < 0 || d > far) far = d, farthest = j;
                if (nearest < 0 || d < near) near = d, nearest = j;
            }
            op.index[i] = farthest;
            op.index[N + i] = nearest;
        }
    }
    return Status::ok;
}

}  // namespace

Status identity_hard(const IdentityHard& op) {
    return dispatch(op.x.dtype, [&](auto element) { return identity<decltype(element)>(op); });
}

}  // namespace VREID_ISA
}  // namespace vreid

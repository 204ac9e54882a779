// Triplet loss of mined distances, and its derivatives. Formulas: vreid_ext/ops/mining.py.
#include <math.h>

#include "cpu/kernels.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class A>
Status triplet_loss(const Triplet& op) {
    const A *positive = static_cast<const A*>(op.distance), *negative = positive + op.N;
    A* slope = static_cast<A*>(op.slope);
    int64_t anchors = 0;
    double total = 0;
    for (int64_t i = 0; i < op.N; ++i) {
        const bool valid = op.index[i] >= 0 && op.index[op.N + i] >= 0;
        const double gap = double(positive[i]) - double(negative[i]), over = op.margin + gap;
        anchors += valid;
        slope[i] = A(!valid ? 0 : op.soft ? 1 / (1 + exp(-gap)) : over > 0);
        if (valid) total += op.soft ? (gap > 0 ? gap : 0) + log1p(exp(-fabs(gap))) : over > 0 ? over : 0;
    }
    const double share = 1 / double(anchors > 0 ? anchors : 1);
    *static_cast<A*>(op.loss) = A(total * share);
    for (int64_t i = 0; i < op.N; ++i) {
        slope[i] *= A(share);
        slope[op.N + i] = -slope[i];
    }
    return Status::ok;
}

}  // namespace

Status triplet(const Triplet& op) {
    return op.dtype == DType::f64 ? triplet_loss<double>(op) : triplet_loss<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid

#include "tape.h"

namespace checks {

const Var Var::nothing;
std::vector<Var::Node> Var::nodes;

std::vector<double> Tape::gradient(const std::vector<Var>& leaves) const {
    std::vector<double> slope(Var::nodes.size());
    for (const auto& [node, weight] : seeds_) {
        if (node >= 0) slope[size_t(node)] += weight;
    }
    for (size_t n = slope.size(); n-- > 0;) {
        const Var::Node& node = Var::nodes[n];
        if (slope[n] == 0) continue;  // a slope of infinity that nothing asks for is not NaN
        if (node.a >= 0) slope[size_t(node.a)] += node.da * slope[n];
        if (node.b >= 0) slope[size_t(node.b)] += node.db * slope[n];
    }
    std::vector<double> result;
    for (const Var& leaf : leaves) result.push_back(slope[size_t(leaf.node_)]);
    return result;
}

}  // namespace checks

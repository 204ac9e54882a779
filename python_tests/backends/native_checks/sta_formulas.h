// Equations 1 to 4 of STA (Fu et al., AAAI 2019), frame by frame. Maps are (clips,T,C,L) of a `Shape`.
#pragma once

#include <vector>

#include "maps.h"

namespace checks {

// Whether a frame counts; an empty list stands for all of them.
inline bool counts(const std::vector<char>& valid, int64_t frame) {
    return valid.empty() || valid[size_t(frame)];
}
inline const bool* pointer(const std::vector<char>& valid) {
    return valid.empty() ? nullptr : reinterpret_cast<const bool*>(valid.data());
}

// The frames of a case that count.
std::vector<char> valid_frames(const MapCase& input, Random& random);

// Attention (frames,L) and norm (frames); zeros for frames that do not count.
struct Attention {
    std::vector<Var> map, norm;
};
Attention attention_map(const std::vector<Var>& x, const Shape& shape, bool root_energy, bool l2_norm,
                        const std::vector<char>& valid);

// Scores (frames,K), normalized over time, and their totals before (clips,K).
struct Scores {
    std::vector<Var> normalized, total;
};
Scores block_scores(const std::vector<Var>& attention, const Shape& shape, const std::vector<char>& valid);

// The frame of the largest score for each block (clips,K), -1 without one.
std::vector<int64_t> best_frames(const std::vector<double>& scores, const Shape& shape,
                                 const std::vector<char>& valid);

}  // namespace checks

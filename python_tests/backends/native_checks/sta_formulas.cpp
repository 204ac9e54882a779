#include "sta_formulas.h"

#include <cmath>

namespace checks {

std::vector<char> valid_frames(const MapCase& input, Random& random) {
    return input.padded ? some_frames(random, input.shape.B, input.shape.T) : std::vector<char>{};
}

Attention attention_map(const std::vector<Var>& x, const Shape& s, bool root_energy, bool l2_norm,
                        const std::vector<char>& valid) {
    Attention result;
    for (int64_t frame = 0; frame < s.frames(); ++frame) {
        if (!counts(valid, frame)) {
            result.map.insert(result.map.end(), size_t(s.L), Var(0));
            result.norm.push_back(0);
            continue;
        }
        std::vector<Var> energy;
        Var norm = 0;
        for (int64_t l = 0; l < s.L; ++l) {
            Var q = 0;
            for (int64_t c = 0; c < s.C; ++c) {
                const Var& value = x[size_t((frame * s.C + c) * s.L + l)];
                q += value * value;
            }
            energy.push_back(root_energy ? sqrt(q) : q);
            norm += l2_norm ? energy.back() * energy.back() : energy.back();
        }
        if (l2_norm) norm = sqrt(norm);
        const double uniform = 1 / (l2_norm ? std::sqrt(double(s.L)) : double(s.L));
        for (const Var& q : energy) result.map.push_back(norm.value != 0 ? q / norm : Var(uniform));
        result.norm.push_back(norm);
    }
    return result;
}

Scores block_scores(const std::vector<Var>& attention, const Shape& s, const std::vector<char>& valid) {
    std::vector<Var> sums;
    for (int64_t i = 0; i < s.frames() * s.K; ++i) {
        Var sum = 0;
        for (int64_t cell = 0; cell < s.cells(); ++cell) sum += abs(attention[size_t(i * s.cells() + cell)]);
        sums.push_back(counts(valid, i / s.K) ? sum : Var(0));
    }
    Scores result;
    result.normalized.resize(sums.size());
    for (int64_t b = 0; b < s.clips(); ++b) {
        for (int64_t k = 0; k < s.K; ++k) {
            Var total = 0;
            int64_t frames = 0;
            for (int64_t t = b * s.T; t < (b + 1) * s.T; ++t) {
                total += sums[size_t(t * s.K + k)];
                frames += counts(valid, t);
            }
            for (int64_t t = b * s.T; t < (b + 1) * s.T; ++t) {
                if (!counts(valid, t)) continue;
                result.normalized[size_t(t * s.K + k)] =
                    total.value != 0 ? sums[size_t(t * s.K + k)] / total : Var(1 / double(frames));
            }
            result.total.push_back(total);
        }
    }
    return result;
}

std::vector<int64_t> best_frames(const std::vector<double>& scores, const Shape& s,
                                 const std::vector<char>& valid) {
    std::vector<int64_t> best;
    for (int64_t b = 0; b < s.clips(); ++b) {
        for (int64_t k = 0; k < s.K; ++k) {
            int64_t chosen = -1;
            for (int64_t t = 0; t < s.T; ++t) {
                if (!counts(valid, b * s.T + t)) continue;
                if (chosen < 0 ||
                    scores[size_t((b * s.T + t) * s.K + k)] > scores[size_t((b * s.T + chosen) * s.K + k)])
                    chosen = t;
            }
            best.push_back(chosen);
        }
    }
    return best;
}

}  // namespace checks

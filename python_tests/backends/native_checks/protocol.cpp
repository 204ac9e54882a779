// count_matches, matches and rank_scores, item by item.
#include <algorithm>
#include <cmath>

#include "checks.h"

namespace checks {
namespace {

std::vector<int64_t> numbers(Random& random, int64_t size, int64_t first, int64_t count, int64_t step = 1) {
    std::vector<int64_t> result;
    for (int64_t n = 0; n < size; ++n) result.push_back(step * (first + random.below(count)));
    return result;
}

// Persons -1, 0, `step`, 2 `step`, ...; two rules, and items to remove.
void check_matches(Context& context, int64_t Q, int64_t G, int64_t step, Random& random) {
    const int64_t rules = 2;
    std::vector<int64_t> query = numbers(random, Q, 0, 7, step), gallery = numbers(random, G, 0, 6, step);
    for (int64_t i = 0; i < Q; i += 5) query[size_t(i)] = -1;
    for (int64_t j = 0; j < G; j += 7) gallery[size_t(j)] = -1;
    const std::vector<int64_t> query_label = numbers(random, rules * Q, 0, 3);
    const std::vector<int64_t> gallery_label = numbers(random, rules * G, 0, 3);
    const std::vector<int64_t> itself = numbers(random, Q, -1, G + 1);
    const bool same[] = {true, false};

    std::vector<int64_t> wanted_row, wanted_index, wanted_left, wanted_start{0}, wanted_left_start{0};
    for (int64_t i = 0; i < Q; ++i) {
        for (int64_t j = 0; j < G; ++j) {
            const bool person = query[size_t(i)] == gallery[size_t(j)];
            bool removed = itself[size_t(i)] == j;
            if (person && query[size_t(i)] == -1) continue;
            if (!person && !removed) continue;
            for (int64_t r = 0; r < rules; ++r)
                removed |= (query_label[size_t(r * Q + i)] == gallery_label[size_t(r * G + j)]) == same[r];
            if (removed) {
                wanted_left.push_back(j);
            } else {
                wanted_row.push_back(i);
                wanted_index.push_back(j);
            }
        }
        wanted_start.push_back(int64_t(wanted_index.size()));
        wanted_left_start.push_back(int64_t(wanted_left.size()));
    }

    std::vector<int64_t> order(static_cast<size_t>(G)), first(static_cast<size_t>(Q)), last(first);
    std::vector<int64_t> start(size_t(Q + 1), -2), left_start(start);
    vreid::Matches op{Q,
                      G,
                      rules,
                      query.data(),
                      gallery.data(),
                      query_label.data(),
                      gallery_label.data(),
                      same,
                      itself.data(),
                      order.data(),
                      first.data(),
                      last.data(),
                      start.data(),
                      left_start.data(),
                      nullptr,
                      nullptr,
                      nullptr};
    context.run(&vreid::Table::count_matches, op);
    context.equal("start", start, wanted_start);
    context.equal("left_start", left_start, wanted_left_start);
    if (start != wanted_start || left_start != wanted_left_start) return;
    std::vector<int64_t> row(wanted_row.size(), -2), index(row), left(wanted_left.size(), -2);
    op.row = row.data();
    op.index = index.data();
    op.left = left.data();
    context.run(&vreid::Table::matches, op);
    context.equal("row", row, wanted_row);
    context.equal("index", index, wanted_index);
    context.equal("left", left, wanted_left);
}

void check_scores(Context& context, int64_t Q, bool trapezoid, Random& random) {
    std::vector<int64_t> start{0}, counts, wanted_first;
    std::vector<double> wanted_ap, wanted_inp;
    for (int64_t i = 0; i < Q; ++i) {
        const int64_t P = i % 4;  // also none
        std::vector<int64_t> ranks;
        for (int64_t p = 0; p < P; ++p) ranks.push_back(1 + 10 * p + random.below(10));
        double total = 0;
        for (int64_t p = 0; p < P; ++p) {
            const double rank = double(ranks[size_t(p)]), precision = double(p + 1) / rank;
            const double before = rank > 1 ? double(p) / (rank - 1) : 1;
            total += trapezoid ? (before + precision) / 2 : precision;
        }
        wanted_ap.push_back(P ? total / double(P) : -1);
        wanted_inp.push_back(P ? double(P) / double(ranks.back()) : -1);
        wanted_first.push_back(P ? ranks[0] : 0);
        for (int64_t p = P; p > 0; --p) counts.push_back(ranks[size_t(p - 1)] - 1);
        start.push_back(int64_t(counts.size()));
    }
    std::vector<double> ap(size_t(Q), -2), inp(ap);
    std::vector<int64_t> first(size_t(Q), -2);
    vreid::RankScores op{Q, start.data(), counts.data(), trapezoid, ap.data(), inp.data(), first.data()};
    context.run(&vreid::Table::rank_scores, op);
    for (std::vector<double>* each : {&ap, &inp})
        for (double& value : *each) value = std::isnan(value) ? -1 : value;
    context.equal("AP", ap, wanted_ap);
    context.equal("INP", inp, wanted_inp);
    context.equal("first rank", first, wanted_first);
}

}  // namespace

void protocol(Context& context) {
    Random random(12);
    for (const auto& [Q, G] : {std::array<int64_t, 2>{0, 1}, {1, 0}, {1, 1}, {9, 50}, {140, 700}}) {
        for (const int64_t step : {int64_t(1), int64_t(1) << 40}) {
            context.begin(describe({{"Q", Q}, {"G", G}, {"step", step}}));
            check_matches(context, Q, G, step, random);
        }
        for (const bool trapezoid : {false, true}) {
            context.begin(describe({{"Q", Q}, {"trapezoid", trapezoid}}));
            check_scores(context, Q, trapezoid, random);
        }
    }
}

}  // namespace checks

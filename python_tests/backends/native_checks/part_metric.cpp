// part_distance and its backward: sum over the parts of w w' || f - f' ||.
#include <cmath>

#include "checks.h"

namespace checks {
namespace {

// One side: features (rows,parts,D), weights (rows,parts).
struct Side {
    Side(DType dtype, int64_t rows, int64_t parts, int64_t D, Random& random)
        : rows(rows),
          parts(parts),
          D(D),
          features(dtype, random_values(random, rows * parts * D)),
          weights(dtype, rows * parts) {
        for (int64_t i = 0; i < rows * parts; ++i) weights.set(i, random.uniform() + 1.5);
    }
    vreid::PartSide view() { return {features.data(), parts * D, D, weights.data(), parts}; }

    int64_t rows, parts, D;
    Array features, weights;
};

void check(Context& context, DType dtype, int64_t parts, int64_t rows, int64_t cols, int64_t D,
           Random& random) {
    Side query(dtype, rows, parts, D, random), gallery(dtype, cols, parts, D, random);
    // The first pair is equal and the last close: their distances come from differences.
    for (int64_t i = 0; i < parts * D; ++i) {
        gallery.features.set(i, query.features[i]);
        const int64_t q = (rows - 1) * parts * D + i, g = (cols - 1) * parts * D + i;
        if (rows > 1 && cols > 1) gallery.features.set(g, query.features[q] + 1e-3 * random.uniform());
    }
    const vreid::PartTile tile{dtype, parts, rows, cols, D, query.view(), gallery.view(), 2};
    Array distance(dtype, rows * cols), again(dtype, rows * cols), distances(dtype, parts * rows * cols);
    vreid::PartDistance op{tile, distance.data(), distances.data()}, alone{tile, again.data(), nullptr};
    context.run(&vreid::Table::part_distance, op);
    context.run(&vreid::Table::part_distance, alone);
    context.equal("distance with the distances of the parts", distance.values(), again.values());

    Tape tape;
    const std::vector<Var> f = leaves(query.features.values()), g = leaves(gallery.features.values()),
                           w = leaves(query.weights.values()), v = leaves(gallery.weights.values());
    std::vector<Var> wanted;
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
            Var total = 0;
            for (int64_t part = 0; part < parts; ++part) {
                Var square = 0;
                for (int64_t d = 0; d < D; ++d) {
                    const Var difference =
                        f[size_t((r * parts + part) * D + d)] - g[size_t((c * parts + part) * D + d)];
                    square += difference * difference;
                }
                total += w[size_t(r * parts + part)] * v[size_t(c * parts + part)] * sqrt(square);
            }
            wanted.push_back(total);
        }
    }
    // The rule for pairs just above what counts as close: roundings of the squared norms, twice magnified.
    context.near("distance", distance, values(wanted), 1000);

    Array grad = upstream(tape, random, wanted, dtype);
    // With given distances the memory of the gradients is overwritten; with distances that are computed
    // again, the same gradients are added to it.
    Array dquery(dtype, rows * parts * D), dgallery(dtype, cols * parts * D);
    Array dquery_weights(dtype, rows * parts), dgallery_weights(dtype, cols * parts);
    Array scratch(dtype, context.kernels.part_distance_scratch(tile));
    for (const double times : {1, 2}) {
        const bool add = times == 2;
        vreid::PartDistanceBackward back{tile,
                                         grad.data(),
                                         cols,
                                         add ? nullptr : distances.data(),
                                         {dquery.data(), dquery_weights.data(), add},
                                         {dgallery.data(), dgallery_weights.data(), add},
                                         parts * D,
                                         D,
                                         parts,
                                         scratch.data()};
        context.run(&vreid::Table::part_distance_backward, back);
        const auto expected = [&](const std::vector<Var>& leaves) {
            std::vector<double> gradient = tape.gradient(leaves);
            for (double& value : gradient) value *= times;
            return gradient;
        };
        context.near("gradient of the query", dquery, expected(f), 1000);
        context.near("gradient of the gallery", dgallery, expected(g), 1000);
        context.near("gradient of the query's weights", dquery_weights, expected(w), 1000);
        context.near("gradient of the gallery's weights", dgallery_weights, expected(v), 1000);
    }
    context.expect(scratch.margins_untouched(), "scratch: nothing beside it is written");
}

}  // namespace

void part_metric(Context& context) {
    Random random(9);
    for (const DType dtype : kWide) {
        for (const auto& [parts, rows, cols, D] :
             {std::array<int64_t, 4>{1, 1, 1, 1}, {3, 7, 11, 77}, {2, 5, 130, 64}, {1, 101, 3, 20}}) {
            context.begin(std::string(name(dtype)) + ", " +
                          describe({{"parts", parts}, {"rows", rows}, {"cols", cols}, {"D", D}}));
            check(context, dtype, parts, rows, cols, D, random);
        }
    }
}

}  // namespace checks

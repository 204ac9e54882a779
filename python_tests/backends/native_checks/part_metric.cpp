// part_distance and its backward: sum over the parts of w w' || f - f' ||.
#include <cmath>
#include <memory>

#include "checks.h"

namespace checks {
namespace {

// One side of a tile: features (rows,parts,D), weights and squared norms (parts,rows).
struct Side {
    Side(DType dtype, int64_t rows, int64_t parts, int64_t D, Random& random)
        : rows(rows),
          parts(parts),
          D(D),
          features(dtype, random_values(random, rows * parts * D)),
          weights(dtype, parts * rows),
          squares(dtype, parts * rows) {
        for (int64_t i = 0; i < parts * rows; ++i) weights.set(i, random.uniform() + 1.5);
    }
    // With squared norms and panels of the features as they are now.
    vreid::PartSide view(Context& context) {
        std::vector<double> numbers;
        for (int64_t part = 0; part < parts; ++part) {
            std::vector<double> own;
            for (int64_t i = 0; i < rows * D; ++i) own.push_back(at(i / D, part, i % D));
            const std::vector<double> packed =
                Packed(context, features.dtype(), own, rows, D).numbers.values();
            numbers.insert(numbers.end(), packed.begin(), packed.end());
        }
        panels = std::make_unique<Array>(features.dtype(), numbers);
        for (int64_t part = 0; part < parts; ++part) {
            for (int64_t i = 0; i < rows; ++i) {
                double square = 0;
                for (int64_t d = 0; d < D; ++d) square += at(i, part, d) * at(i, part, d);
                squares.set(part * rows + i, square);
            }
        }
        return {features.data(), parts * D, D, squares.data(), weights.data(), rows, panels->data()};
    }
    double at(int64_t i, int64_t part, int64_t d) const { return features[(i * parts + part) * D + d]; }

    int64_t rows, parts, D;
    Array features, weights, squares;
    std::unique_ptr<Array> panels;
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
    const vreid::PartTile tile{dtype, parts, rows, cols, D, query.view(context), gallery.view(context), 2};
    Array distance(dtype, std::vector<double>(size_t(rows * cols)));
    vreid::PartDistance op{tile, distance.data(), cols};
    context.run(&vreid::Table::part_distance, op);

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
                total += w[size_t(part * rows + r)] * v[size_t(part * cols + c)] * sqrt(square);
            }
            wanted.push_back(total);
        }
    }
    // The rule for pairs just above what counts as close: roundings of the squared norms, twice magnified.
    context.near("distance", distance, values(wanted), 1000);

    Array grad = upstream(tape, random, wanted, dtype);
    Array dquery(dtype, std::vector<double>(size_t(rows * parts * D)));
    Array dgallery(dtype, std::vector<double>(size_t(cols * parts * D)));
    Array dquery_weights(dtype, std::vector<double>(size_t(parts * rows)));
    Array dgallery_weights(dtype, std::vector<double>(size_t(parts * cols)));
    Array scratch(dtype, context.kernels.part_distance_scratch(tile));
    vreid::PartDistanceBackward back{tile,
                                     grad.data(),
                                     cols,
                                     dquery.data(),
                                     dgallery.data(),
                                     parts * D,
                                     D,
                                     dquery_weights.data(),
                                     dgallery_weights.data(),
                                     rows,
                                     cols,
                                     scratch.data()};
    context.run(&vreid::Table::part_distance_backward, back);
    context.near("gradient of the query", dquery, tape.gradient(f), 1000);
    context.near("gradient of the gallery", dgallery, tape.gradient(g), 1000);
    context.near("gradient of the query's weights", dquery_weights, tape.gradient(w), 1000);
    context.near("gradient of the gallery's weights", dgallery_weights, tape.gradient(v), 1000);
    context.expect(scratch.margins_untouched(), "scratch: nothing beside it is written");
}

}  // namespace

void part_metric(Context& context) {
    Random random(9);
    for (const DType dtype : kWide) {
        for (const auto& [parts, rows, cols, D] :
             {std::array<int64_t, 4>{1, 1, 1, 1}, {3, 7, 11, 77}, {2, 5, 130, 64}}) {
            context.begin(std::string(name(dtype)) + ", " +
                          describe({{"parts", parts}, {"rows", rows}, {"cols", cols}, {"D", D}}));
            check(context, dtype, parts, rows, cols, D, random);
        }
    }
}

}  // namespace checks

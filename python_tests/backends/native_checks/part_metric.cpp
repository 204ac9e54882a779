// part_distance and its backward, after the products of the features: sum over the parts of w w' || f - f'
// ||.
#include <cmath>

#include "checks.h"

namespace checks {
namespace {

// One side of a tile: features (rows,parts,D), weights and squared norms (parts,rows).
struct Side {
    Side(DType dtype, int64_t rows, int64_t parts, int64_t D, Random& random)
        : parts(parts),
          D(D),
          features(dtype, random_values(random, rows * parts * D)),
          weights(dtype, parts * rows),
          squares(dtype, parts * rows) {
        for (int64_t i = 0; i < parts * rows; ++i) weights.set(i, random.uniform() + 1.5);
    }
    // Squared norms of the features as they are now.
    vreid::PartSide view(int64_t rows) {
        for (int64_t part = 0; part < parts; ++part) {
            for (int64_t i = 0; i < rows; ++i) {
                double square = 0;
                for (int64_t d = 0; d < D; ++d) square += at(i, part, d) * at(i, part, d);
                squares.set(part * rows + i, square);
            }
        }
        return {features.data(), parts * D, D, squares.data(), weights.data(), rows};
    }
    double at(int64_t i, int64_t part, int64_t d) const { return features[(i * parts + part) * D + d]; }

    int64_t parts, D;
    Array features, weights, squares;
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
    const vreid::PartTile tile{dtype, parts, rows, cols, D, query.view(rows), gallery.view(cols), 2};
    std::vector<double> dots;
    for (int64_t i = 0; i < parts * rows * cols; ++i) {
        const int64_t part = i / (rows * cols), r = i / cols % rows, c = i % cols;
        dots.push_back(0);
        for (int64_t d = 0; d < D; ++d) dots.back() += query.at(r, part, d) * gallery.at(c, part, d);
    }
    Array products(dtype, dots), again(dtype, dots), lengths(dtype, parts * rows * cols);
    Array distance(dtype, std::vector<double>(size_t(rows * cols)));
    vreid::PartDistance op{tile, products.data(), distance.data(), cols};
    context.run(&vreid::Table::part_distance, op);

    Tape tape;
    const std::vector<Var> f = leaves(query.features.values()), g = leaves(gallery.features.values());
    std::vector<Var> wanted;
    std::vector<double> between;
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
                between.push_back(std::sqrt(square.value));
                total += query.weights[part * rows + r] * gallery.weights[part * cols + c] * sqrt(square);
            }
            wanted.push_back(total);
        }
    }
    // The rule for pairs just above what counts as close: roundings of the squared norms, twice magnified.
    context.near("distance", distance, values(wanted), 1000);

    // What the kernel adds itself, and what it leaves to a product with the slopes.
    Array grad = upstream(tape, random, wanted, dtype);
    Array dquery(dtype, std::vector<double>(size_t(rows * parts * D)));
    Array dgallery(dtype, std::vector<double>(size_t(cols * parts * D)));
    vreid::PartDistanceBackward back{
        tile, grad.data(), cols, again.data(), lengths.data(), dquery.data(), dgallery.data(), parts * D, D};
    context.run(&vreid::Table::part_distance_backward, back);
    std::vector<double> df = dquery.values(), dg = dgallery.values(), moments;
    for (int64_t i = 0; i < parts * rows * cols; ++i) {
        const int64_t part = i / (rows * cols), r = i / cols % rows, c = i % cols;
        for (int64_t d = 0; d < D; ++d) {
            const double step = again[i] * (query.at(r, part, d) - gallery.at(c, part, d));
            df[size_t((r * parts + part) * D + d)] += step;
            dg[size_t((c * parts + part) * D + d)] -= step;
        }
        moments.push_back(grad[r * cols + c] * between[size_t((r * cols + c) * parts + part)]);
    }
    const double tolerance = 1000 * epsilon(dtype);
    context.near("gradient of the query", df, tape.gradient(f), tolerance);
    context.near("gradient of the gallery", dg, tape.gradient(g), tolerance);
    context.near("lengths", lengths, moments, 1000);
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

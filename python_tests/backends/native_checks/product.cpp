// pack_rows and products: products of rows, the same bits wherever a pair stands.
#include <cmath>

#include "checks.h"

namespace checks {
namespace {

Array products(Context& context, Packed& x, Packed& y, DType dtype, int threads) {
    Array out(dtype, x.N * y.N);
    const vreid::Products op{dtype, x.view(), y.view(), out.data(), y.N, threads};
    context.run(&vreid::Table::products, op);
    return out;
}

void check(Context& context, DType dtype, int64_t N, int64_t M, int64_t D, Random& random) {
    const DType acc = accumulator(dtype);
    const Array x(dtype, random_values(random, N * D)), y(dtype, random_values(random, M * D));
    std::vector<double> wanted;
    for (int64_t i = 0; i < N * M; ++i) {
        wanted.push_back(0);
        for (int64_t d = 0; d < D; ++d) wanted.back() += x[i / M * D + d] * y[i % M * D + d];
    }
    Packed rows(context, dtype, x.values(), N, D), columns(context, dtype, y.values(), M, D);
    const Array got = products(context, rows, columns, acc, 1);
    context.near("products", got, wanted);
    const Array turned = products(context, columns, rows, acc, 3);
    bool same = true;
    for (int64_t i = 0; i < N * M; ++i) same = same && got[i] == turned[i % M * N + i / M];
    context.expect(same, "x y' is the transpose of y x'");
    const int64_t last = N - 1;
    const std::vector<double> all = x.values();
    Packed row(context, dtype, {all.begin() + last * D, all.end()}, 1, D);
    const Array alone = products(context, row, columns, acc, 2);
    same = true;
    for (int64_t j = 0; j < M; ++j) same = same && alone[j] == got[last * M + j];
    context.expect(same, "a row's products do not depend on its place");
}

}  // namespace

void product(Context& context) {
    Random random(14);
    for (const DType dtype : kDTypes) {
        for (const auto& [N, M, D] :
             {std::array<int64_t, 3>{1, 1, 1}, {5, 33, 19}, {97, 200, 129}, {13, 7, 600}}) {
            context.begin(std::string(name(dtype)) + ", " + describe({{"N", N}, {"M", M}, {"D", D}}));
            check(context, dtype, N, M, D, random);
        }
    }
}

}  // namespace checks

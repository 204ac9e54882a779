// Packed rows and their products in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

// The number of rows of a panel.
int64_t panel_rows(int64_t code) {
    return kernels().table->panel_rows(dtype(code));
}

void pack_rows(const RowsTuple& x, int64_t scale, int64_t panels, int64_t square, int threads) {
    const Rows given = rows("x", x);
    const PackRows op{given, nullable(scale), pointer("panels", panels, given.N * given.D), nullable(square),
                      check_threads(threads)};
    run(&Table::pack_rows, op);
}

void products(int64_t code, const PanelsTuple& x, const PanelsTuple& y, int64_t out, int64_t stride,
              int threads) {
    const Panels left = panels("x", x), right = panels("y", y);
    if (left.D != right.D) fail("y", "D = ", left.D, ", got ", right.D);
    const Products op{dtype(code),           left, right, pointer("out", out, left.N * right.N), stride,
                      check_threads(threads)};
    run(&Table::products, op);
}

}  // namespace

void bind_product(pybind11::module_& m) {
    VREID_DEFINE(m, panel_rows, pack_rows, products);
    m.attr("PRODUCT_BLOCK") = kDepth;
}

}  // namespace vreid

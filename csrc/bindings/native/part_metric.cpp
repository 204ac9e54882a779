// The part metric in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

VREID_TUPLE(PartSizes, dtype, parts, rows, cols, D);
VREID_TUPLE(PartSide, features, row_stride, part_stride, weights, weight_stride);
VREID_TUPLE(PartGradient, features, weights, add);

PartSide part_side(const char* name, const PartSideTuple& side, int64_t size) {
    return {pointer(name, side.features, size), side.row_stride, side.part_stride,
            pointer(name, side.weights, size), side.weight_stride};
}

PartTile part_tile(const PartSizesTuple& sizes, const PartSideTuple& query, const PartSideTuple& gallery,
                   int threads) {
    check_sizes("sizes", {sizes.parts, sizes.rows, sizes.cols, sizes.D});
    return {dtype(sizes.dtype),
            sizes.parts,
            sizes.rows,
            sizes.cols,
            sizes.D,
            part_side("query", query, sizes.parts * sizes.rows),
            part_side("gallery", gallery, sizes.parts * sizes.cols),
            check_threads(threads)};
}

PartGradient part_gradient(const char* name, const PartGradientTuple& gradient, int64_t size) {
    return {pointer(name, gradient.features, size), pointer(name, gradient.weights, size), gradient.add != 0};
}

void part_distance(const PartSizesTuple& sizes, const PartSideTuple& query, const PartSideTuple& gallery,
                   int64_t distance, int64_t distances, int threads) {
    const PartTile tile = part_tile(sizes, query, gallery, threads);
    PartDistance op{tile, pointer("distance", distance, tile.rows * tile.cols), nullable(distances)};
    run(&Table::part_distance, op);
}

int64_t part_distance_scratch(const PartSizesTuple& sizes) {
    return kernels().table->part_distance_scratch(
        {dtype(sizes.dtype), sizes.parts, sizes.rows, sizes.cols, sizes.D, {}, {}, 1});
}

void part_distance_backward(const PartSizesTuple& sizes, const PartSideTuple& query,
                            const PartSideTuple& gallery, int64_t grad, int64_t grad_stride,
                            int64_t distances, const PartGradientTuple& query_gradient,
                            const PartGradientTuple& gallery_gradient, int64_t row_stride,
                            int64_t part_stride, int64_t weight_stride, int64_t scratch, int threads) {
    const PartTile tile = part_tile(sizes, query, gallery, threads);
    PartDistanceBackward op{tile,
                            pointer("grad", grad, tile.rows * tile.cols),
                            grad_stride,
                            nullable(distances),
                            part_gradient("dquery", query_gradient, tile.parts * tile.rows),
                            part_gradient("dgallery", gallery_gradient, tile.parts * tile.cols),
                            row_stride,
                            part_stride,
                            weight_stride,
                            pointer("scratch", scratch, tile.rows * tile.cols)};
    run(&Table::part_distance_backward, op);
}

}  // namespace

void bind_part_metric(pybind11::module_& m) {
    export_tuples<PartSizesTuple, PartSideTuple, PartGradientTuple>(m);
    m.attr("CLOSE_PAIR") = kClosePair;
    VREID_DEFINE(m, part_distance, part_distance_scratch, part_distance_backward);
}

}  // namespace vreid

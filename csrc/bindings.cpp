// vreid_ext._native: the CPU kernels behind addresses, sizes and strides. Those of rankings are in
// bindings_ranking.cpp.
//
// Arguments arrive checked by vreid_ext.ops; what is checked here is what would crash the process.
#include "bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

namespace py = pybind11;

namespace vreid {
namespace {

void sta_pool(const MapTuple& map, int64_t valid, int64_t K, int64_t pooled, int64_t scores,
              int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice, int threads) {
    const FeatureMap x = feature_map("x", map);
    check_blocks(K, x.L);
    StaPool op{x,
               static_cast<const bool*>(address("valid", valid, 0)),
               K,
               address("pooled", pooled, x.B * 2 * x.C),
               address("scores", scores, x.B * x.T * K),
               address("attention", attention, x.B * x.T * x.L),
               address("sums", sums, x.B * x.T * K * x.C),
               address("energy", energy, x.B * x.T),
               address("total", total, x.B * K),
               static_cast<int64_t*>(address("choice", choice, x.B * K)),
               check_threads(threads)};
    run(&Table::sta_pool, op);
}

void sta_pool_backward(const MapTuple& map, const MapTuple& gradient, int64_t valid, int64_t K,
                       int64_t grad_pooled, int64_t grad_scores, int64_t grad_attention, int64_t scores,
                       int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice,
                       int threads) {
    const FeatureMap x = feature_map("x", map), dx = feature_map("dx", gradient);
    check_same_layout(x, dx);
    check_blocks(K, x.L);
    StaPoolBackward op{x,
                       dx,
                       static_cast<const bool*>(address("valid", valid, 0)),
                       K,
                       address("grad_pooled", grad_pooled, 0),
                       address("grad_scores", grad_scores, 0),
                       address("grad_attention", grad_attention, 0),
                       address("scores", scores, x.B * x.T * K),
                       address("attention", attention, x.B * x.T * x.L),
                       address("sums", sums, x.B * x.T * K * x.C),
                       address("energy", energy, x.B * x.T),
                       address("total", total, x.B * K),
                       static_cast<const int64_t*>(address("choice", choice, x.B * K)),
                       check_threads(threads)};
    run(&Table::sta_pool_backward, op);
}

void attention_map(const MapTuple& map, bool root_energy, bool l2_norm, int64_t attention, int64_t norm,
                   int threads) {
    const FeatureMap x = feature_map("x", map);
    AttentionMap op{x,
                    root_energy,
                    l2_norm,
                    address("attention", attention, x.B * x.T * x.L),
                    address("norm", norm, x.B * x.T),
                    check_threads(threads)};
    run(&Table::attention_map, op);
}

void attention_map_backward(const MapTuple& map, const MapTuple& gradient, bool root_energy, bool l2_norm,
                            int64_t grad, int64_t attention, int64_t norm, int threads) {
    const FeatureMap x = feature_map("x", map), dx = feature_map("dx", gradient);
    check_same_layout(x, dx);
    AttentionMapBackward op{x,
                            dx,
                            root_energy,
                            l2_norm,
                            address("grad", grad, x.B * x.T * x.L),
                            address("attention", attention, x.B * x.T * x.L),
                            address("norm", norm, x.B * x.T),
                            check_threads(threads)};
    run(&Table::attention_map_backward, op);
}

void block_scores(int64_t code, int64_t B, int64_t T, int64_t L, int64_t K, int64_t attention, int64_t valid,
                  int64_t scores, int64_t total, int threads) {
    check_blocks(K, L);
    BlockScores op{dtype(code),
                   B,
                   T,
                   L,
                   K,
                   address("attention", attention, B * T * L),
                   static_cast<const bool*>(address("valid", valid, 0)),
                   address("scores", scores, B * T * K),
                   address("total", total, B * K),
                   check_threads(threads)};
    run(&Table::block_scores, op);
}

void block_scores_backward(int64_t code, int64_t B, int64_t T, int64_t L, int64_t K, int64_t grad,
                           int64_t attention, int64_t valid, int64_t scores, int64_t total,
                           int64_t dattention, int threads) {
    check_blocks(K, L);
    BlockScoresBackward op{dtype(code),
                           B,
                           T,
                           L,
                           K,
                           address("grad", grad, B * T * K),
                           address("attention", attention, B * T * L),
                           static_cast<const bool*>(address("valid", valid, 0)),
                           address("scores", scores, B * T * K),
                           address("total", total, B * K),
                           address("dattention", dattention, B * T * L),
                           check_threads(threads)};
    run(&Table::block_scores_backward, op);
}

void fuse(const MapTuple& map, int64_t K, int64_t scores, int64_t valid, int64_t fused, int64_t choice,
          int threads) {
    const FeatureMap x = feature_map("x", map);
    check_blocks(K, x.L);
    Fuse op{x,
            K,
            address("scores", scores, x.B * x.T * K),
            static_cast<const bool*>(address("valid", valid, 0)),
            address("fused", fused, x.B * 2 * x.C * x.L),
            static_cast<int64_t*>(address("choice", choice, x.B * K)),
            check_threads(threads)};
    run(&Table::fuse, op);
}

void fuse_backward(const MapTuple& map, const MapTuple& gradient, int64_t K, int64_t grad, int64_t scores,
                   int64_t choice, int64_t valid, int64_t dscores, int threads) {
    const FeatureMap x = feature_map("x", map), dx = feature_map("dx", gradient);
    check_same_layout(x, dx);
    check_blocks(K, x.L);
    FuseBackward op{x,
                    dx,
                    K,
                    address("grad", grad, x.B * 2 * x.C * x.L),
                    address("scores", scores, x.B * x.T * K),
                    static_cast<const int64_t*>(address("choice", choice, x.B * K)),
                    static_cast<const bool*>(address("valid", valid, 0)),
                    address("dscores", dscores, x.B * x.T * K),
                    check_threads(threads)};
    run(&Table::fuse_backward, op);
}

const int64_t* frame_pairs(int64_t pairs, int64_t B, int64_t T, int64_t M) {
    const int64_t* index = static_cast<const int64_t*>(address("pairs", pairs, B * M * 2));
    for (int64_t i = 0; i < B * M * 2; ++i) {
        if (index[i] < 0 || index[i] >= T)
            throw py::index_error("pairs: got frame " + std::to_string(index[i]) + " of " +
                                  std::to_string(T));
    }
    return index;
}

void inter_frame_distance(int64_t code, int64_t B, int64_t T, int64_t L, int64_t M, int64_t attention,
                          int64_t pairs, int64_t distance, int threads) {
    InterFrameDistance op{dtype(code),
                          B,
                          T,
                          L,
                          M,
                          address("attention", attention, B * T * L),
                          frame_pairs(pairs, B, T, M),
                          address("distance", distance, B),
                          check_threads(threads)};
    run(&Table::inter_frame_distance, op);
}

void inter_frame_distance_backward(int64_t code, int64_t B, int64_t T, int64_t L, int64_t M, int64_t grad,
                                   int64_t attention, int64_t pairs, int64_t dattention, int threads) {
    InterFrameDistanceBackward op{dtype(code),
                                  B,
                                  T,
                                  L,
                                  M,
                                  address("grad", grad, B),
                                  address("attention", attention, B * T * L),
                                  frame_pairs(pairs, B, T, M),
                                  address("dattention", dattention, B * T * L),
                                  check_threads(threads)};
    run(&Table::inter_frame_distance_backward, op);
}

int64_t panel_rows(int64_t code) {
    return kernels().table->panel_rows(dtype(code));
}

void pack_rows(const RowsTuple& x, int64_t scale, int64_t panels, int64_t square, int threads) {
    const Rows given = rows("x", x);
    const PackRows op{given, address("scale", scale, 0), address("panels", panels, given.N * given.D),
                      address("square", square, 0), check_threads(threads)};
    run(&Table::pack_rows, op);
}

void products(int64_t code, const PanelsTuple& x, const PanelsTuple& y, int64_t out, int64_t stride,
              int threads) {
    const Panels left = panels("x", x), right = panels("y", y);
    if (left.D != right.D)
        throw std::invalid_argument("y: expected D = " + std::to_string(left.D) + ", got " +
                                    std::to_string(right.D));
    const Products op{dtype(code),           left, right, address("out", out, left.N * right.N), stride,
                      check_threads(threads)};
    run(&Table::products, op);
}

// (features, strides of their rows and parts, squared norms, weights, stride of the parts of both, panels)
using PartSideTuple = std::array<int64_t, 7>;

PartSide part_side(const char* name, const PartSideTuple& side, int64_t size) {
    const auto [features, row_stride, part_stride, squares, weights, stride, packed] = side;
    return {address(name, features, size),
            row_stride,
            part_stride,
            address(name, squares, size),
            address(name, weights, size),
            stride,
            address(name, packed, size)};
}

// (dtype code, parts, rows, cols, D)
using PartTuple = std::array<int64_t, 5>;

PartTile part_tile(const PartTuple& part, const PartSideTuple& query, const PartSideTuple& gallery,
                   int threads) {
    const auto [code, parts, rows, cols, D] = part;
    return {dtype(code),
            parts,
            rows,
            cols,
            D,
            part_side("query", query, parts * rows),
            part_side("gallery", gallery, parts * cols),
            check_threads(threads)};
}

void part_distance(const PartTuple& part, const PartSideTuple& query, const PartSideTuple& gallery,
                   int64_t distance, int64_t distance_stride, int threads) {
    const PartTile tile = part_tile(part, query, gallery, threads);
    PartDistance op{tile, address("distance", distance, tile.rows * tile.cols), distance_stride};
    run(&Table::part_distance, op);
}

int64_t part_distance_scratch(const PartTuple& part) {
    const auto [code, parts, rows, cols, D] = part;
    return kernels().table->part_distance_scratch({dtype(code), parts, rows, cols, D, {}, {}, 1});
}

void part_distance_backward(const PartTuple& part, const PartSideTuple& query, const PartSideTuple& gallery,
                            int64_t grad, int64_t grad_stride, int64_t dquery, int64_t dgallery,
                            int64_t row_stride, int64_t part_stride, int64_t dquery_weights,
                            int64_t dgallery_weights, int64_t query_weight_stride,
                            int64_t gallery_weight_stride, int64_t scratch, int threads) {
    const PartTile tile = part_tile(part, query, gallery, threads);
    PartDistanceBackward op{tile,
                            address("grad", grad, tile.rows * tile.cols),
                            grad_stride,
                            address("dquery", dquery, tile.parts * tile.rows * tile.D),
                            address("dgallery", dgallery, tile.parts * tile.cols * tile.D),
                            row_stride,
                            part_stride,
                            address("dquery_weights", dquery_weights, tile.parts * tile.rows),
                            address("dgallery_weights", dgallery_weights, tile.parts * tile.cols),
                            query_weight_stride,
                            gallery_weight_stride,
                            address("scratch", scratch, tile.rows * tile.cols)};
    run(&Table::part_distance_backward, op);
}

int64_t prepare_rows(const RowsTuple& x, int64_t offset, bool centre, int64_t panels, int64_t square,
                     int threads) {
    const Rows given = rows("x", x);
    PrepareRows op{given,
                   address("offset", offset, centre ? given.D : 0),
                   centre,
                   address("panels", panels, given.N * given.D),
                   address("square", square, given.N),
                   -1,
                   check_threads(threads)};
    run(&Table::prepare_rows, op);
    return op.bad_row;
}

void mine(int64_t code, const PanelsTuple& x, const PanelsTuple& ref, int64_t row_id, int64_t column_id,
          int64_t row_square, int64_t column_square, int64_t index, int threads) {
    const Panels anchors = panels("x", x), others = panels("ref", ref);
    if (others.data && others.D != anchors.D)
        throw std::invalid_argument("ref: expected D = " + std::to_string(anchors.D) + ", got " +
                                    std::to_string(others.D));
    const int64_t candidates = others.data ? others.N : anchors.N;
    const Mine op{dtype(code),
                  anchors,
                  others,
                  address("row_id", row_id, anchors.N),
                  address("column_id", column_id, candidates),
                  address("row_square", row_square, anchors.N),
                  address("column_square", column_square, candidates),
                  address<int64_t>("index", index, 2 * anchors.N),
                  check_threads(threads)};
    run(&Table::mine, op);
}

const int64_t* row_index(const char* name, int64_t index, int64_t size, int64_t least, int64_t rows) {
    const int64_t* values = address<const int64_t>(name, index, size);
    for (int64_t i = 0; i < size; ++i) {
        if (values[i] < least || values[i] >= rows)
            throw std::invalid_argument(std::string(name) + ": got " + std::to_string(values[i]) +
                                        ", wanted " + std::to_string(least) + " to " +
                                        std::to_string(rows - 1));
    }
    return values;
}

void mined_distance(const RowsTuple& x, const RowsTuple& ref, int64_t index, int64_t M, int64_t metric,
                    int64_t distance, int threads) {
    const Rows anchors = rows("x", x), others = rows("ref", ref);
    MinedDistance op{anchors,
                     others,
                     row_index("index", index, M * anchors.N, -1, others.data ? others.N : anchors.N),
                     M,
                     mining_metric(metric),
                     address("distance", distance, M * anchors.N),
                     check_threads(threads)};
    run(&Table::mined_distance, op);
}

void mined_distance_backward(const RowsTuple& x, const RowsTuple& ref, int64_t index, int64_t M,
                             int64_t metric, int64_t grad, int64_t distance, int64_t dx, int64_t dref,
                             int threads) {
    const Rows anchors = rows("x", x), others = rows("ref", ref);
    MinedDistanceBackward op{anchors,
                             others,
                             row_index("index", index, M * anchors.N, -1, others.data ? others.N : anchors.N),
                             M,
                             mining_metric(metric),
                             address("grad", grad, M * anchors.N),
                             address("distance", distance, M * anchors.N),
                             address("dx", dx, 0),
                             address("dref", dref, 0),
                             check_threads(threads)};
    run(&Table::mined_distance_backward, op);
}

void triplet(int64_t code, int64_t N, int64_t distance, int64_t index, double margin, bool soft, int64_t loss,
             int64_t slope) {
    Triplet op{dtype(code),
               N,
               address("distance", distance, 2 * N),
               address<const int64_t>("index", index, 2 * N),
               margin,
               soft,
               address("loss", loss, 1),
               address("slope", slope, 2 * N)};
    run(&Table::triplet, op);
}

void identity_hard(const RowsTuple& x, int64_t labels, int64_t order, int64_t metric, bool include_self,
                   int64_t index, int threads) {
    const Rows given = rows("x", x);
    IdentityHard op{given,
                    address<const int64_t>("labels", labels, given.N),
                    row_index("order", order, given.N, 0, given.N),
                    mining_metric(metric),
                    include_self,
                    address<int64_t>("index", index, 2 * given.N),
                    check_threads(threads)};
    run(&Table::identity_hard, op);
}

void check_regions(int64_t K) {
    if (K < 1) throw std::invalid_argument("regions: got " + std::to_string(K));
}

void region_pool(const MapTuple& map, int64_t K, int64_t logits, int64_t weights, int64_t features,
                 int64_t overlap, int threads) {
    const FeatureMap x = feature_map("x", map);
    check_regions(K);
    RegionPool op{x,
                  K,
                  address("logits", logits, x.B * x.T * K * x.L),
                  address("weights", weights, x.B * x.T * K * x.L),
                  address("features", features, x.B * x.T * K * x.C),
                  address("overlap", overlap, x.B * x.T),
                  check_threads(threads)};
    run(&Table::region_pool, op);
}

void region_pool_backward(const MapTuple& map, const MapTuple& gradient, int64_t K, int64_t grad_features,
                          int64_t grad_weights, int64_t grad_overlap, int64_t weights, int64_t dlogits,
                          int threads) {
    const FeatureMap x = feature_map("x", map), dx = feature_map("dx", gradient);
    check_same_layout(x, dx);
    check_regions(K);
    RegionPoolBackward op{x,
                          dx,
                          K,
                          address("grad_features", grad_features, 0),
                          address("grad_weights", grad_weights, 0),
                          address("grad_overlap", grad_overlap, 0),
                          address("weights", weights, x.B * x.T * K * x.L),
                          address("dlogits", dlogits, x.B * x.T * K * x.L),
                          check_threads(threads)};
    run(&Table::region_pool_backward, op);
}

void hellinger_overlap(int64_t code, int64_t frames, int64_t K, int64_t L, bool root, int64_t weights,
                       int64_t overlap, int threads) {
    check_regions(K);
    HellingerOverlap op{dtype(code),
                        frames,
                        K,
                        L,
                        root,
                        address("weights", weights, frames * K * L),
                        address("overlap", overlap, frames),
                        check_threads(threads)};
    run(&Table::hellinger_overlap, op);
}

void hellinger_overlap_backward(int64_t code, int64_t frames, int64_t K, int64_t L, bool root, int64_t grad,
                                int64_t weights, int64_t dweights, int threads) {
    check_regions(K);
    HellingerOverlapBackward op{dtype(code),
                                frames,
                                K,
                                L,
                                root,
                                address("grad", grad, frames),
                                address("weights", weights, frames * K * L),
                                address("dweights", dweights, frames * K * L),
                                check_threads(threads)};
    run(&Table::hellinger_overlap_backward, op);
}

void temporal_pool(int64_t code, int64_t B, int64_t T, int64_t K, int64_t D, int64_t weights,
                   int64_t features, int64_t valid, int64_t pooled, int threads) {
    TemporalPool op{dtype(code),
                    B,
                    T,
                    K,
                    D,
                    address("weights", weights, B * T * K),
                    address("features", features, B * T * K * D),
                    static_cast<const bool*>(address("valid", valid, 0)),
                    address("pooled", pooled, B * K * D),
                    check_threads(threads)};
    run(&Table::temporal_pool, op);
}

void temporal_pool_backward(int64_t code, int64_t B, int64_t T, int64_t K, int64_t D, int64_t grad,
                            int64_t weights, int64_t features, int64_t valid, int64_t dscores,
                            int64_t dfeatures, int threads) {
    TemporalPoolBackward op{dtype(code),
                            B,
                            T,
                            K,
                            D,
                            address("grad", grad, B * K * D),
                            address("weights", weights, B * T * K),
                            address("features", features, B * T * K * D),
                            static_cast<const bool*>(address("valid", valid, 0)),
                            address("dscores", dscores, B * T * K),
                            address("dfeatures", dfeatures, B * T * K * D),
                            check_threads(threads)};
    run(&Table::temporal_pool_backward, op);
}

float read_probe(int64_t source, int64_t size, int threads) {
    Probe op{static_cast<const float*>(address("source", source, size)), nullptr, size, 0,
             check_threads(threads)};
    run(&Table::probe, op);
    return op.sum;
}

void copy_probe(int64_t source, int64_t target, int64_t size, int threads) {
    Probe op{static_cast<const float*>(address("source", source, size)),
             static_cast<float*>(address("target", target, size)), size, 0, check_threads(threads)};
    run(&Table::probe, op);
}

py::dict build_info() {
    py::dict info;
    info["isa"] = kernels().isa;
    info["usable_isas"] = usable_isas();
    info["compiler"] = VREID_COMPILER;
    info["openmp"] = _OPENMP;
    return info;
}

}  // namespace
}  // namespace vreid

PYBIND11_MODULE(_native, m) {
    using namespace vreid;
    m.doc() = "CPU kernels of vreid_ext; use them through vreid_ext.ops.";
    m.def("sta_pool", &sta_pool);
    m.def("sta_pool_backward", &sta_pool_backward);
    m.def("attention_map", &attention_map);
    m.def("attention_map_backward", &attention_map_backward);
    m.def("block_scores", &block_scores);
    m.def("block_scores_backward", &block_scores_backward);
    m.def("fuse", &fuse);
    m.def("fuse_backward", &fuse_backward);
    m.def("inter_frame_distance", &inter_frame_distance);
    m.def("inter_frame_distance_backward", &inter_frame_distance_backward);
    m.def("panel_rows", &panel_rows, "Rows of a panel of numbers of this dtype code.");
    m.def("pack_rows", &pack_rows);
    m.def("products", &products);
    m.def("part_distance", &part_distance);
    m.def("part_distance_scratch", &part_distance_scratch);
    m.def("part_distance_backward", &part_distance_backward);
    m.def("prepare_rows", &prepare_rows);
    m.def("mine", &mine);
    m.def("mined_distance", &mined_distance);
    m.def("mined_distance_backward", &mined_distance_backward);
    m.def("triplet", &triplet);
    m.def("identity_hard", &identity_hard);
    m.def("region_pool", &region_pool);
    m.def("region_pool_backward", &region_pool_backward);
    m.def("hellinger_overlap", &hellinger_overlap);
    m.def("hellinger_overlap_backward", &hellinger_overlap_backward);
    m.def("temporal_pool", &temporal_pool);
    m.def("temporal_pool_backward", &temporal_pool_backward);
    m.def("read_probe", &read_probe, "Sum of `size` floats at an address: one plain vectorised read.");
    m.def("copy_probe", &copy_probe, "Copy `size` floats: one plain vectorised read and write.");
    m.def("build_info", &build_info);
    define_ranking(m);
}

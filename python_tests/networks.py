"""Small networks in ONNX files, as other packages export them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_network(path, batch=None, channels=5, size=(32, 16), pixels=TensorProto.FLOAT):
    """A convolution, its mean over the picture, and a matrix; images (batch,3,*size) -> (batch,channels).

    Returns the same network as a function of an array (N,3,*size).
    """
    random = np.random.default_rng(0)
    kernel = random.normal(size=(channels, 3, 1, 1)).astype(np.float32)
    matrix = random.normal(size=(channels, channels)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "kernel"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["feature"]),
    ]
    rows = batch or "batch"
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", pixels, [rows, 3, *size])],
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, [rows, channels])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(matrix, "matrix")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)

    def run(images):
        maps = np.einsum("nchw,kc->nkhw", images.astype(np.float32), kernel[:, :, 0, 0])
        return np.maximum(maps, 0).mean((2, 3)) @ matrix

    return run

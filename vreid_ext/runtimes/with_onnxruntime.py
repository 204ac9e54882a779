"""Networks in onnxruntime, on the CPU."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vreid_ext.runtimes.network import OpenedNetwork, Port

_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(uint8)": torch.uint8,
}


def open_onnx(file: Path, threads: int | None = None) -> OpenedNetwork:
    """Open an ONNX file. threads: of one call; None: one per physical core."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{file} needs onnxruntime: pip install 'vreid-ext[deploy]'") from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # warnings about constants of the network do not concern its user
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    metadata = session.get_modelmeta().custom_metadata_map.get("vreid_ext", "")
    ports = [_port(node) for node in session.get_inputs()]
    return OpenedNetwork(file, "onnxruntime", ports, metadata, {}, run)


def _port(node: Any) -> Port:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    if node.type not in _DTYPES:
        raise ValueError(f"network: expected an input of {', '.join(_DTYPES)}, got {node.type}")
    return Port(node.name, shape, _DTYPES[node.type])

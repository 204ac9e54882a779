"""Networks in OpenVINO, on the CPU."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vreid_ext.runtimes.network import OpenedNetwork, Port

_DTYPES = {"f32": torch.float32, "f16": torch.float16, "u8": torch.uint8}
_STEPS = ("mean_values", "scale_values", "reverse_input_channels")
METADATA = "vreid_ext"


def core() -> Any:
    """OpenVINO's entry object."""
    try:
        import openvino
    except ImportError as error:
        raise ImportError("an OpenVINO network needs openvino: pip install 'vreid-ext[deploy]'") from error
    return openvino.Core()


def save_network(network: Any, file: Path, about: Mapping[str, Any]) -> None:
    """Write an `openvino.Model` to NAME.xml and NAME.bin without rounding, with metadata as JSON."""
    import openvino

    network.set_rt_info(json.dumps(about), METADATA)
    openvino.save_model(network, file, compress_to_fp16=False)


def open_openvino(file: Path, threads: int | None = None) -> OpenedNetwork:
    """Open an OpenVINO network (.xml with the .bin file beside it) or an ONNX file.

    A fixed number of images is made dynamic if the network permits it.

    Args:
        threads: of one call; None: chosen by OpenVINO.
    """
    opener = core()
    model = opener.read_model(file)
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    network = _compiled(opener, model, settings)

    def run(*inputs: Tensor) -> Tensor:
        request = network.create_infer_request()  # a request is not shared between threads
        request.infer([value.numpy() for value in inputs])
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    ports = [_port(port) for port in network.inputs]
    metadata = model.get_rt_info(METADATA).value if model.has_rt_info(METADATA) else ""
    return OpenedNetwork(file, "openvino", ports, metadata, _preprocessing(model), run)


def _compiled(opener: Any, model: Any, settings: dict[str, Any]) -> Any:
    shapes = {port: port.partial_shape for port in model.inputs}
    if any(shape[0].is_static for shape in shapes.values()):
        try:
            dynamic = model.clone()
            dynamic.reshape({port.any_name: [-1, *list(shape)[1:]] for port, shape in shapes.items()})
            return opener.compile_model(dynamic, "CPU", settings)
        except RuntimeError:  # the network contains the number of images, for example in a reshape
            pass
    return opener.compile_model(model, "CPU", settings)


def _port(port: Any) -> Port:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    kind = port.element_type.to_string()
    if kind not in _DTYPES:
        raise ValueError(f"network: expected an input of {', '.join(_DTYPES)}, got {kind}")
    return Port(port.any_name, shape, _DTYPES[kind])


def _preprocessing(model: Any) -> dict[str, Any]:
    """What OpenVINO's converter was told about the input, as text."""
    found = {}
    for step in _STEPS:
        path = ["conversion_parameters", step]
        if model.has_rt_info(path):
            found[step] = str(model.get_rt_info(path).value)
    return found

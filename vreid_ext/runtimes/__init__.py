"""Networks in ONNX and OpenVINO files, behind one function."""

from pathlib import Path

from vreid_ext.runtimes.network import OpenedNetwork, Port
from vreid_ext.runtimes.with_onnxruntime import open_onnx
from vreid_ext.runtimes.with_openvino import open_openvino

__all__ = ["SUFFIXES", "OpenedNetwork", "Port", "is_network", "open_network"]

SUFFIXES = (".onnx", ".xml")
RUNTIMES = {"onnxruntime": open_onnx, "openvino": open_openvino}


def is_network(path: Path) -> bool:
    """Whether a path is an existing ONNX or OpenVINO file."""
    return path.suffix in SUFFIXES and path.is_file()


def open_network(file: Path, runtime: str | None = None, threads: int | None = None) -> OpenedNetwork:
    """Open an ONNX file or an OpenVINO network.

    Args:
        file: `.onnx`, or `.xml` with the `.bin` file beside it.
        runtime: "onnxruntime" or "openvino"; None: onnxruntime for `.onnx`, OpenVINO for `.xml`.
        threads: number of threads of one call; None: chosen by the runtime.

    Raises:
        ImportError: the runtime is not installed.
        ValueError: unknown suffix or runtime, or the file is damaged.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(f"network: expected a file {' or '.join(SUFFIXES)}, got {str(file)!r}")
    chosen = runtime or ("onnxruntime" if file.suffix == ".onnx" else "openvino")
    if chosen not in RUNTIMES or (chosen == "onnxruntime" and file.suffix != ".onnx"):
        raise ValueError(f"runtime: expected one that opens {file.suffix} files, got {chosen!r}")
    if not file.is_file():
        raise ValueError(f"network: expected an existing file, got {str(file)!r}")
    try:
        return RUNTIMES[chosen](file, threads)
    except (ImportError, ValueError):
        raise
    except Exception as error:  # damaged files raise many exception types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ValueError(f"network: {str(file)!r} cannot be opened by {chosen}: {reason}") from error

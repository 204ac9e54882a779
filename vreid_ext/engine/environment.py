"""Description of the software and hardware that computed a result."""

import platform

import torch

import vreid_ext
from vreid_ext import backends


def environment() -> dict[str, str]:
    """Names and values: versions, number of threads, GPUs, and build information of the native modules."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "vreid_ext": vreid_ext.__version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "CUDA of torch": torch.version.cuda or "none",
        "GPUs": ", ".join(gpus) or "none",
        **backends.build_info(),
    }

"""Video person re-identification: fused kernels, layers, losses, metrics and complete systems.

`import vreid_ext` requires only torch and NumPy. Subpackages with further dependencies have extras, such as
`pip install 'vreid-ext[train]'`.
"""

from importlib import import_module
from typing import Any

import vreid_ext._process  # noqa: F401  must run before torch is imported
from vreid_ext import ops
from vreid_ext.backends import empty_cache, use_backend

__version__ = "0.1.0"

_SUBPACKAGES = ("backends", "data", "engine", "gallery", "losses", "metrics", "models", "nn", "report")
# Names that are imported on first use, because their modules need more than torch and NumPy.
_LAZY = {"Embedder": "vreid_ext.engine.embedder", "Gallery": "vreid_ext.gallery"}

__all__ = ["__version__", "empty_cache", "losses", "metrics", "models", "nn", "ops", "use_backend"]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"vreid_ext.{name}")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vreid_ext' has no attribute {name!r}")

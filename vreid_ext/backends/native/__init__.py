"""CPU kernels in C++ (`vreid_ext._native`): baseline, AVX2 and AVX-512, chosen when the module is loaded.

`VREID_ISA=baseline|avx2|avx512` forces a lower instruction set. Importing this package raises ValueError if
the variable has another value or names one that this machine lacks. Threads: `torch.set_num_threads`.
"""

from typing import Any

import torch

# After torch, so that the kernels share torch's OpenMP runtime instead of loading a second.
try:
    from vreid_ext import _native
except ImportError as error:
    _missing: str | None = f"vreid_ext._native cannot be loaded ({error}); `pip install .` builds it"
else:
    _missing = None
    _native.build_info()  # chooses the instruction set
    from vreid_ext.backends.native.mining import (  # noqa: F401
        batch_hard,
        batch_hard_triplet,
        identity_hard,
        mined_distance,
        mined_distance_backward,
    )
    from vreid_ext.backends.native.part_metric import (  # noqa: F401
        part_distance,
        part_distance_backward,
    )
    from vreid_ext.backends.native.ranking import (  # noqa: F401
        feature_rank_counts,
        pair_distances,
        rank_counts,
        top_k,
    )
    from vreid_ext.backends.native.region import (  # noqa: F401
        hellinger_overlap,
        hellinger_overlap_backward,
        region_pool,
        region_pool_backward,
        temporal_pool,
        temporal_pool_backward,
    )
    from vreid_ext.backends.native.rerank import k_reciprocal  # noqa: F401
    from vreid_ext.backends.native.sta import (  # noqa: F401
        attention_map,
        attention_map_backward,
        block_scores,
        block_scores_backward,
        fuse,
        fuse_backward,
        inter_frame_distance,
        inter_frame_distance_backward,
        sta_pool,
        sta_pool_backward,
    )

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def unavailable(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run `op`, or None."""
    if _missing is not None:
        return _missing
    if op not in globals():
        return f"{op} has no native kernel"
    if device.type != "cpu":
        return f"runs on the CPU, not on {device.type}"
    if dtype not in _DTYPES:
        return f"has no kernels for {dtype}"
    return None


def build_info() -> dict[str, Any] | None:
    """Instruction set in use and usable ones, compiler and OpenMP version; None without the module."""
    return None if _missing is not None else _native.build_info()

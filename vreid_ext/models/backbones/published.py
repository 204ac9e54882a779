"""Published weights."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor


def from_url(url: str) -> Mapping[str, Tensor]:
    """The state dict at this address, from torch's cache or downloaded.

    Raises:
        FileNotFoundError: the download fails; the message names the path at which the file is expected.
    """
    try:
        state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except OSError as error:  # includes URLError and all network errors
        file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
        raise FileNotFoundError(
            f"weights: 'imagenet' is not in torch's cache and could not be downloaded ({error}); "
            f"put {url} at {file}, or pass the path of a file"
        ) from error
    return state

"""An appearance encoder with the interfaces of multi-object trackers: BoxMOT, trackers and reid.

from vreid_ext import Embedder
from vreid_ext.compat.trackers import TrackerEncoder

encoder = TrackerEncoder(Embedder("runs/first"))
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


class TrackerEncoder:
    """Features of the boxes of one picture, for the association in a tracker.

    All rows have norm 1, because these packages compare features by the cosine. Pictures are BGR, as in these
    packages, whatever the `color` of the embedder; the frames of `encode` are RGB.

    | package | use | method |
    |---|---|---|
    | boxmot 25 | `BotSort(reid_model=encoder)` and the other trackers with `reid_model` | `get_features` |
    | boxmot 25 | `boxmot.reid.AppearanceEncoder`, for pipelines | `encode` |
    | trackers 2.0 | `DeepSORTTracker(feature_extractor=encoder)` | `extract_features` |
    | reid 0.1 | in place of a `ReIDModel` | `extract_embeddings` |

    Args:
        embedder: an `Embedder`.
    """

    def __init__(self, embedder: Any) -> None:
        self.embedder = embedder

    def __repr__(self) -> str:
        return f"TrackerEncoder({self.embedder!r})"

    def get_features(self, boxes: Any, image: np.ndarray) -> NDArray[np.float32]:
        """Features (N,D) of boxes (N,4), x1 y1 x2 y2, in a picture (H,W,3) uint8 BGR."""
        return self._features(image, boxes, "bgr").numpy()

    def extract_features(self, frame: np.ndarray, detections: Any) -> NDArray[np.float32]:
        """Features (N,D) of `supervision.Detections` in a picture (H,W,3) uint8 BGR."""
        return self.get_features(detections, frame)

    def extract_embeddings(self, detections: Any, frame: np.ndarray) -> NDArray[np.float32]:
        """`extract_features` with its arguments exchanged."""
        return self.get_features(detections, frame)

    def encode(self, frames: Sequence[Any], detections: Sequence[Any]) -> list[Tensor]:
        """Features (N,D) of the axis-aligned boxes in each `boxmot.structures.Frame`."""
        if len(frames) != len(detections):
            raise ValueError(
                f"detections: expected one entry for each of {len(frames)} frames, got {len(detections)}"
            )
        found = []
        for frame, each in zip(frames, detections, strict=True):
            boxes = each.geometry.values
            if boxes.shape[1] != 4:
                raise ValueError(
                    f"detections: expected axis-aligned boxes with 4 numbers, got {boxes.shape[1]} numbers"
                )
            found.append(self._features(frame.image.permute(1, 2, 0).numpy(), boxes.numpy(), "rgb"))
        return found

    @property
    def embedding_dim(self) -> int:
        """D."""
        return int(self.embedder.dimensions)

    @property
    def requirements(self) -> Any:
        """`boxmot.reid.EncoderRequirements`: no masks."""
        from boxmot.reid import EncoderRequirements

        return EncoderRequirements()

    def _features(self, picture: np.ndarray, boxes: Any, color: str) -> Tensor:
        if color != self.embedder.color:
            picture = picture[:, :, ::-1]
        return F.normalize(self.embedder.boxes(picture, boxes), dim=1)

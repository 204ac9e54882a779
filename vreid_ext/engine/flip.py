"""The flip test: features of clips and of their mirror images."""

from collections.abc import Callable

from torch import Tensor, nn

from vreid_ext.data.pose.joints import mirror_joints


class Mirrored(nn.Module):
    """Mean of the outputs of a model for clips and for the same clips flipped horizontally.

    Args:
        model: module or function (clips (B,T,3,h,w), valid (B,T) | None, **inputs) -> (B,D).

    Call: `mirrored(clips, valid=None, **inputs)`. Joints (`inputs["joints"]`) are mirrored with the frames.
    """

    def __init__(self, model: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor, valid: Tensor | None = None, **inputs: Tensor) -> Tensor:
        plain = self.model(clips, valid, **inputs)
        if "joints" in inputs:
            inputs = inputs | {"joints": mirror_joints(inputs["joints"])}
        return (plain + self.model(clips.flip(-1), valid, **inputs)) / 2

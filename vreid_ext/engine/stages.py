"""Training in stages: which parts of the model rest in an epoch, as a function of the epoch alone."""

from collections.abc import Sequence
from difflib import get_close_matches

from torch import nn

from vreid_ext.engine.config import Stage


class Stages:
    """The stages of a run and the model whose parts they freeze.

    The optimizer holds every parameter from the start; one that is frozen has no gradient, so that it is left
    alone, weight decay and momentum included, and what is saved and resumed does not depend on the stage.

    Raises:
        ValueError: a name in `freeze` is no part of the model.
    """

    def __init__(self, model: nn.Module, stages: Sequence[Stage]) -> None:
        self.model, self.stages = model, stages
        # What a model itself has fixed stays so.
        self.trainable = [name for name, value in model.named_parameters() if value.requires_grad]
        parts = {name for name, _ in (*model.named_modules(), *model.named_parameters()) if name}
        for number, stage in enumerate(stages):
            for name in stage.freeze:
                if name not in parts:
                    near = get_close_matches(name, parts, n=1, cutoff=0.0)
                    hint = f"; nearest: {near[0]!r}" if near else ""
                    raise ValueError(f"stages[{number}].freeze: the model has no part {name!r}{hint}")

    def frozen(self, epoch: int) -> list[str]:
        """Names of the parts that rest in an epoch, from 0."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage.freeze
            epoch -= stage.epochs
        return []

    def enter(self, epoch: int) -> None:
        """Freeze what rests in this epoch and nothing else; to be called with the model in training mode."""
        names = self.frozen(epoch)
        parameters = dict(self.model.named_parameters())
        for name in self.trainable:
            parameters[name].requires_grad_(not any(_within(name, part) for part in names))
        for name, module in self.model.named_modules():
            if any(_within(name, part) for part in names):
                module.eval()


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")

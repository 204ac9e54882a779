"""Training in stages: which parts of the model rest in an epoch, as a function of the epoch alone."""

from collections.abc import Sequence

from torch import nn

from vreid_ext.engine.parts import check_parts, within
from vreid_ext.engine.recipe import Stage


class Stages:
    """The stages of a run and the model whose parts they freeze.

    The optimizer holds every parameter from the start; one that is frozen has no gradient, so that it is left
    alone, weight decay and momentum included, and what is saved and resumed does not depend on the stage.

    Raises:
        ValueError: a name in `freeze` is no part of the model, or a stage leaves nothing to train.
    """

    def __init__(self, model: nn.Module, stages: Sequence[Stage]) -> None:
        self.model, self.stages = model, stages
        # What a model itself has fixed stays so.
        self.trainable = [name for name, value in model.named_parameters() if value.requires_grad]
        for number, stage in enumerate(stages):
            key = f"stages[{number}].freeze"
            check_parts(key, stage.freeze, model)
            if all(any(within(name, part) for part in stage.freeze) for name in self.trainable):
                raise ValueError(f"{key}: expected something left to train, got all of it: {stage.freeze}")

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
            parameters[name].requires_grad_(not any(within(name, part) for part in names))
        for name, module in self.model.named_modules():
            if any(within(name, part) for part in names):
                module.eval()

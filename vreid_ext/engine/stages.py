"""Training in stages: the epoch determines which parts of the model are frozen."""

from collections.abc import Sequence

from torch import nn

from vreid_ext.engine.parts import check_parts, within
from vreid_ext.engine.recipe import Stage


class Stages:
    """Freezes and unfreezes parts of a model according to a list of stages.

    The optimizer contains all parameters in all stages. A frozen parameter has no gradient, so the optimizer
    skips it, including weight decay and momentum. The format of a checkpoint therefore does not depend on the
    stage.

    Raises:
        ValueError: a name in `freeze` is not a part of the model, or a stage freezes all parameters.
    """

    def __init__(self, model: nn.Module, stages: Sequence[Stage]) -> None:
        self.model, self.stages = model, stages
        # Parameters that the model itself has frozen stay frozen in all stages.
        self.trainable = [name for name, value in model.named_parameters() if value.requires_grad]
        for number, stage in enumerate(stages):
            key = f"stages[{number}].freeze"
            check_parts(key, stage.freeze, model)
            if all(any(within(name, part) for part in stage.freeze) for name in self.trainable):
                raise ValueError(
                    f"{key}: expected a stage that freezes part of the model, got all of it: {stage.freeze}"
                )

    def frozen(self, epoch: int) -> list[str]:
        """Names of the parts that are frozen in an epoch, counted from 0."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage.freeze
            epoch -= stage.epochs
        return []

    def enter(self, epoch: int) -> None:
        """Freeze the parts of this epoch's stage and unfreeze all others. Call it after `model.train()`."""
        names = self.frozen(epoch)
        parameters = dict(self.model.named_parameters())
        for name in self.trainable:
            parameters[name].requires_grad_(not any(within(name, part) for part in names))
        for name, module in self.model.named_modules():
            if any(within(name, part) for part in names):
                module.eval()

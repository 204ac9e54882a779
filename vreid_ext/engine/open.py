"""Loading of the model and the recipe of a checkpoint."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from vreid_ext.engine.build import model_of
from vreid_ext.engine.checkpoint import describe_model, load_weights, read_state, resolve_checkpoint
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.engine.recipe import Recipe


def open_checkpoint(path: str | Path, overrides: Iterable[str] = ()) -> tuple[nn.Module, Recipe, Path]:
    """Load a checkpoint: its model in evaluation mode, its recipe with overrides applied, and its folder.

    `path` may be what `resolve_checkpoint` takes: a checkpoint, a run, a pretrained folder or a network file.

    Raises:
        ValueError: there is no checkpoint, or the overrides change the model so that the weights do not fit
            (the message describes both models).
    """
    folder = resolve_checkpoint(Path(path))
    state = read_state(folder)
    recipe = recipe_from_dict(state["recipe"], overrides)
    if folder.is_file():  # a network, which contains its weights
        return model_of(recipe, state["num_classes"]).eval(), recipe, folder
    model = model_of(recipe, state["num_classes"], start_weights=False)
    load_weights(folder, model, describe_model(recipe.model, state["num_classes"]))
    return model.eval(), recipe, folder

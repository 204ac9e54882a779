"""Features of a checkpoint on disk, for searching and for other programs."""

from collections.abc import Callable, Iterable
from pathlib import Path

from vreid_ext.engine.build import one_dataset_of
from vreid_ext.engine.distributed import default_device
from vreid_ext.engine.evaluate import TestSet, open_checkpoint, stored_features
from vreid_ext.metrics.stored import StoredFeatures


def export_features(
    checkpoint: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[StoredFeatures]:
    """Embed query and gallery of a checkpoint's data set into `out`, as `metrics.stored` describes it.

    What `out` holds already, because an earlier call was interrupted, is not embedded again. A recipe of
    several test lengths gets a folder for each, `out/<frames>`. Under `torchrun` the processes share the
    work.

    Returns:
        What was written, a folder for each test length.

    Raises:
        ValueError: `out` holds something else.
    """
    model, recipe, _ = open_checkpoint(checkpoint, overrides)
    test = TestSet(one_dataset_of(recipe))
    device = default_device()
    model.to(device)
    return [
        stored_features(model, test, recipe, frames, Path(out), device=device, progress=progress)
        for frames in recipe.eval.frames
    ]

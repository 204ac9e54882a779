"""The pictures of `vreid plot`, as PNG or SVG."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vreid_ext.data import Tracklet, TrackletDataset, read_image
from vreid_ext.data.names import nfc
from vreid_ext.distributed import default_device
from vreid_ext.engine.build import corruption_of, one_dataset_of
from vreid_ext.engine.evaluate import Evaluated, evaluate_model
from vreid_ext.engine.figures import read_result
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.report.attention import picture_attention
from vreid_ext.report.clips import plot_ranking
from vreid_ext.report.curves import plot_cmc
from vreid_ext.report.ranked import ranked_lists


def draw_cmc(results: Sequence[Path], path: Path, *, ranks: int = 20) -> Path:
    """Draw the CMC curves of finished runs, or of the JSON files that `vreid eval` writes.

    Raises:
        ValueError: a result has no metrics, ranks is below 1, or the suffix is neither .png nor .svg.
    """
    if ranks < 1:
        raise ValueError(f"ranks: expected at least 1, got {ranks}")
    read = [read_result(result) for result in results]
    names = Counter(figures["recipe"] for figures in read)
    rows = [
        {"label": figures["recipe"] if names[figures["recipe"]] == 1 else str(result), **row}
        for result, figures in zip(results, read, strict=True)
        for row in figures["rows"]
    ]
    return plot_cmc(cmc_curves(rows, ranks), path)


def draw_heatmap(checkpoint: Path, query: str, path: Path, overrides: Iterable[str] = ()) -> Path:
    """Draw the attention of a checkpoint's model on a query tracklet.

    Args:
        query: the name of the tracklet, or its index in the list of queries.

    Raises:
        ValueError: no such query, or the model has no attention.
    """
    model, recipe, _ = open_checkpoint(checkpoint, overrides)
    data = one_dataset_of(recipe)
    corruption = corruption_of(recipe.eval, data)
    drawn = picture_attention(
        model.to(default_device()), recipe, query_of(data, query), path, corruption=corruption
    )
    if drawn is None:
        raise ValueError(f"checkpoint: expected a model with attention, got {recipe.model['name']!r}")
    return drawn


def draw_ranking(
    checkpoint: Path,
    query: str,
    path: Path,
    overrides: Iterable[str] = (),
    *,
    ranks: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw the middle frames of the nearest gallery tracklets of a query.

    Args:
        query: as in `draw_heatmap`.
        ranks: number of ranks; junk between them is drawn in addition.

    Raises:
        ValueError: no such query, or ranks is below 1.
    """
    model, recipe, _ = open_checkpoint(checkpoint, overrides)
    dataset = one_dataset_of(recipe)
    tracklet = query_of(dataset, query)
    evaluations: list[Evaluated] = []
    device = default_device()
    evaluate_model(
        model.to(device), replace(dataset, query=[tracklet]), recipe,
        device=device, progress=progress, observe=evaluations.append,
    )  # fmt: skip
    (places,) = ranked_lists(evaluations[0], ranks)
    return plot_ranking(
        _middle_frame(tracklet),
        [_middle_frame(dataset.gallery[place.gallery]) for place in places],
        [place.kind for place in places],
        [place.distance for place in places],
        path,
        title=tracklet.name,
    )


def cmc_curves(rows: Iterable[Mapping[str, Any]], ranks: int) -> dict[str, list[float]]:
    """Label -> CMC up to rank `ranks`. Labels include the test length if the rows have several."""
    rows = list(rows)
    several = len({row["frames"] for row in rows}) > 1
    return {
        row["label"] + (f", {row['frames']} frames" if several else ""): row["cmc"][:ranks] for row in rows
    }


def query_of(dataset: TrackletDataset, query: str) -> Tracklet:
    """The query tracklet with this name or, if `query` is a number, with this index.

    Raises:
        ValueError: no such query, or several queries have this name.
    """
    for form in (str, nfc):  # the name as typed may differ from the file name in its Unicode normal form
        matches = [tracklet for tracklet in dataset.query if form(tracklet.name) == form(query)]
        if len(matches) > 1:
            raise ValueError(f"query: expected a name of one tracklet, got {query!r}, of {len(matches)}")
        if matches:
            return matches[0]
    if query.isdecimal() and int(query) < len(dataset.query):
        return dataset.query[int(query)]
    near = get_close_matches(query, [tracklet.name for tracklet in dataset.query], n=3, cutoff=0.0)
    raise ValueError(
        f"query: expected a name, such as {', '.join(near)}, or a number from 0 to "
        f"{len(dataset.query) - 1}, got {query!r}"
    )


def _middle_frame(tracklet: Tracklet) -> Any:
    return read_image(tracklet.paths[len(tracklet) // 2])

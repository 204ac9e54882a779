"""Pictures of runs for papers: what `vreid plot` draws, PNG or SVG."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vreid_ext.data import Tracklet, TrackletDataset, read_image
from vreid_ext.data.names import nfc
from vreid_ext.distributed import default_device
from vreid_ext.engine.build import one_dataset_of
from vreid_ext.engine.evaluate import Evaluated, evaluate_model
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.report.attention import picture_attention
from vreid_ext.report.clips import plot_ranking
from vreid_ext.report.curves import plot_cmc
from vreid_ext.report.ranked import ranked_lists


def draw_cmc(results: Sequence[Path], path: Path, *, ranks: int = 20) -> Path:
    """Draw the CMC curves of finished runs, or of the JSON files that `vreid eval` writes.

    Raises:
        ValueError: no figures there, ranks below 1, or another suffix than .png or .svg.
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
    """Draw what a checkpoint's model attends to on a query tracklet.

    Args:
        query: the tracklet's name, or its place among the queries from 0.

    Raises:
        ValueError: no such query, or a model without attention.
    """
    model, recipe, _ = open_checkpoint(checkpoint, overrides)
    tracklet = query_of(one_dataset_of(recipe), query)
    drawn = picture_attention(model.to(default_device()), recipe, tracklet, path)
    if drawn is None:
        raise ValueError(f"checkpoint: model {recipe.model['name']!r} has no attention to draw")
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
    """Draw the nearest gallery tracklets of a query, each by its middle frame.

    Args:
        query: as for `draw_heatmap`.
        ranks: counted places; junk is drawn between them.

    Raises:
        ValueError: no such query, ranks below 1.
    """
    model, recipe, _ = open_checkpoint(checkpoint, overrides)
    dataset = one_dataset_of(recipe)
    asked = query_of(dataset, query)
    seen: list[Evaluated] = []
    device = default_device()
    evaluate_model(
        model.to(device), replace(dataset, query=[asked]), recipe,
        device=device, progress=progress, observe=seen.append,
    )  # fmt: skip
    (places,) = ranked_lists(seen[0], ranks)
    return plot_ranking(
        _face(asked),
        [_face(dataset.gallery[place.gallery]) for place in places],
        [place.kind for place in places],
        [place.distance for place in places],
        path,
        title=asked.name,
    )


def read_result(path: Path) -> dict[str, Any]:
    """The figures in a JSON file, or those of a finished run's folder.

    Raises:
        ValueError: none there.
    """
    file = path / "result.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"result: expected a finished run or the JSON of `vreid eval`, got {str(path)!r}")
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is no JSON: {error}") from error
    if not isinstance(result, dict) or "rows" not in result:
        raise ValueError(f"result: expected the JSON of `vreid eval`, got {str(file)!r}, which has no rows")
    return result


def cmc_curves(rows: Iterable[Mapping[str, Any]], ranks: int) -> dict[str, list[float]]:
    """Label to CMC up to rank `ranks`; the test length is named where there is more than one."""
    rows = list(rows)
    several = len({row["frames"] for row in rows}) > 1
    return {
        row["label"] + (f", {row['frames']} frames" if several else ""): row["cmc"][:ranks] for row in rows
    }


def query_of(dataset: TrackletDataset, query: str) -> Tracklet:
    """The query tracklet of this name or, for a number, at this place from 0."""
    for written in (str, nfc):  # a name may be typed with other accents than it has on the disk
        named = [tracklet for tracklet in dataset.query if written(tracklet.name) == written(query)]
        if len(named) > 1:
            raise ValueError(f"query: expected a name of one tracklet, got {query!r}, of {len(named)}")
        if named:
            return named[0]
    if query.isdecimal() and int(query) < len(dataset.query):
        return dataset.query[int(query)]
    near = get_close_matches(query, [tracklet.name for tracklet in dataset.query], n=3, cutoff=0.0)
    raise ValueError(
        f"query: expected a name, such as {', '.join(near)}, or a number from 0 to "
        f"{len(dataset.query) - 1}, got {query!r}"
    )


def _face(tracklet: Tracklet) -> Any:
    return read_image(tracklet.paths[len(tracklet) // 2])

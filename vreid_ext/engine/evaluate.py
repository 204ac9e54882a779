"""Retrieval figures of a trained model: CMC, mAP and mINP under the protocol of its data set."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vreid_ext import metrics
from vreid_ext.attributes import attribute_labels
from vreid_ext.data import Tracklet, TrackletDataset, set_names
from vreid_ext.distributed import default_device, main_writes
from vreid_ext.engine.build import datasets_of
from vreid_ext.engine.checkpoint import read_state, resolve_checkpoint
from vreid_ext.engine.comparison import Comparison, metric_of, rerank_options
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.engine.extract import extract_features
from vreid_ext.engine.features import extraction, parts, stored_features, streams
from vreid_ext.engine.figures import write_figures
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Recipe
from vreid_ext.features.stored import StoredRows

RANKS = (1, 5, 10, 20)


class Evaluated(NamedTuple):
    """What the figures of one test length were computed from.

    Attributes:
        frames: T of the clips.
        query, gallery: features (Q,D), (G,D) of the data set's tracklets, on the CPU.
        itself: (Q,) the gallery row that is the query itself, -1 where there is none.
        result: the figures, with those of each query.
    """

    model: nn.Module
    dataset: TrackletDataset
    recipe: Recipe
    frames: int
    query: Tensor
    gallery: Tensor
    itself: Tensor
    result: metrics.ReIDResult

    def __repr__(self) -> str:
        return f"Evaluated({self.dataset!r}, {self.frames} frames, {self.result})"


def evaluate_model(
    model: nn.Module,
    dataset: TrackletDataset,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    features: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    observe: Callable[[Evaluated], None] | None = None,
) -> dict[str, Any]:
    """Evaluate as the recipe's `eval` and `input` say, once for each test length.

    Args:
        features: a folder that the features are written to and read from (`stored_features`); the next call
            goes on with what is there. In memory unless given.
        progress: called with (clips embedded, clips in all) of a test length.
        observe: called for each test length with the features and the figures of every query.

    Returns:
        A JSON-ready dict: recipe, dataset, protocol (which gallery), junk (whether gallery tracklets of the
        query's person and camera are left out), metric ("re-ranked cosine" and so on with re-ranking), ap
        (the definition used), and `rows`, one for each test length: frames, sampling, `rerank` (k1, k2 and
        lambda_value, only with re-ranking), mAP, mINP, rank1, rank5, rank10, rank20 (fractions), cmc,
        queries, valid_queries, gallery, `per_query` (name, pid, ap and first_hit of every query, lists; ap is
        None for a skipped query), and, where the recipe has them for distances of the same kind, the
        published figures `paper_percent`. For a model with attribute streams also `attributes`: accuracy, f1
        and samples of each, over the test tracklets that have the stream's attributes.
    """
    test = Comparison(dataset)
    test.first_match()
    metric = metric_of(model, recipe)
    recognised = streams(model)
    rows = []
    for frames in recipe.eval.frames:
        query: Tensor | StoredRows
        gallery: Tensor | StoredRows
        if features is None:
            options = extraction(model, recipe, frames, device, progress)
            embedded = parts(model, extract_features(model, test.tracklets, **options))
            query, gallery = embedded["features"][test.query], embedded["features"][test.gallery]
            logits = embedded.get("attributes")
        else:
            stored = stored_features(model, test, recipe, frames, features, device=device, progress=progress)
            query, gallery = stored.rows("query"), stored.rows("gallery")
            logits = _loaded(stored.rows(tensor="attributes")) if recognised else None
        result = test.evaluate(query, gallery, recipe, metric)
        if observe is not None:
            rows_of = _loaded(query), _loaded(gallery)
            observe(Evaluated(model, dataset, recipe, frames, *rows_of, test.itself, result))
        row: dict[str, Any] = {"frames": frames, "sampling": recipe.eval.sampling}
        if recipe.eval.rerank:
            row["rerank"] = rerank_options(recipe)
        row |= {"mAP": result.mAP, "mINP": result.mINP}
        row |= {f"rank{k}": float(result.cmc[k - 1]) for k in RANKS if k <= len(result.cmc)}
        row |= {"queries": len(dataset.query), "valid_queries": result.valid_queries}
        row["gallery"] = len(dataset.gallery)
        row["cmc"] = result.cmc.tolist()
        row["per_query"] = _per_query(dataset, result)
        if frames in recipe.paper.rows and recipe.paper.rerank == recipe.eval.rerank:
            row["paper_percent"] = recipe.paper.rows[frames]
        if logits is not None:
            row["attributes"] = {}
            widths = [sum(sizes.values()) for sizes in recognised.values()]
            for sizes, part in zip(recognised.values(), logits.split(widths, 1), strict=True):
                row["attributes"] |= _attribute_scores(part, test.tracklets, sizes)
        rows.append(row)
    return {
        "recipe": recipe.name,
        "dataset": dataset.name,
        "protocol": dataset.protocol,
        "junk": dataset.junk,
        "metric": "model's" if callable(metric) else f"{'re-ranked ' * recipe.eval.rerank}{metric}",
        "ap": recipe.eval.ap,
        "paper": recipe.paper.source,
        "rows": rows,
    }


def evaluate_sets(
    model: nn.Module,
    datasets: Sequence[TrackletDataset],
    recipe: Recipe,
    *,
    features: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """`evaluate_model` on each of a recipe's data sets.

    Args:
        features: as for `evaluate_model`; of several sets each has a folder of its own in it.
        options: as for `evaluate_model`.

    Returns:
        What `evaluate_model` returns; for several data sets with the rows of all, each with its `dataset`,
        `protocol` and `junk`.
    """
    if len(datasets) == 1:
        return evaluate_model(model, datasets[0], recipe, features=features, **options)
    for each in datasets:  # all are looked at before the first is evaluated
        Comparison(each).first_match()
    names = set_names(datasets)
    results = [
        evaluate_model(model, each, recipe.of_set(number), features=features and features / name, **options)
        for number, (name, each) in enumerate(zip(names, datasets, strict=True))
    ]
    rows = [
        {"dataset": name, "protocol": result["protocol"], "junk": result["junk"], **row}
        for name, result in zip(names, results, strict=True)
        for row in result["rows"]
    ]
    together = {
        "dataset": ", ".join(names),
        "protocol": "; ".join(
            f"{name}: {each['protocol']}" for name, each in zip(names, results, strict=True)
        ),
        "junk": all(result["junk"] for result in results),
        "rows": rows,
    }
    return results[0] | together


def evaluate_checkpoint(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    out: Path | None = None,
    features: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    observe: Callable[[Evaluated], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint, or the newest of a run, and write the figures.

    Under `torchrun` (`join_processes`) the processes share the work, and the first one writes.

    Args:
        path: checkpoint or run folder.
        overrides: `key=value` on top of the checkpoint's recipe: another test length, gallery or data set.
        out: the JSON file; by default `eval-<data set>-<sampling>-<frames>.json` in the checkpoint's run,
            with `-reranked` behind the frames where that was asked for. The figures of each query are
            written next to it (`write_figures`).
        features, progress, observe: as for `evaluate_model`.

    Returns:
        What `evaluate_model` returns, with `checkpoint` and `file`; `per_query` is the name of the file with
        the figures of each query.
    """
    overrides = list(overrides)
    model, recipe, folder = open_checkpoint(path, overrides)
    datasets = datasets_of(recipe)
    device = default_device()
    file = out or figures_file(path, overrides)
    with main_writes("out", file):
        result = evaluate_sets(
            model.to(device), datasets, recipe,
            device=device, features=features, progress=progress, observe=observe,
        )  # fmt: skip
        return write_figures(file, result | {"checkpoint": str(folder), "file": str(file)})


def figures_file(path: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Where `evaluate_checkpoint` writes the figures if it is not told otherwise."""
    folder = resolve_checkpoint(Path(path))
    recipe = recipe_from_dict(read_state(folder)["recipe"], overrides)
    sets, lengths = "-".join(set_names(recipe.datasets)), "-".join(map(str, recipe.eval.frames))
    name = f"eval-{sets}-{recipe.eval.sampling}-{lengths}{'-reranked' * recipe.eval.rerank}"
    return folder.parent.parent / f"{name}.json"


def _per_query(dataset: TrackletDataset, result: metrics.ReIDResult) -> dict[str, list[Any]]:
    ap, first_hit = (result.per_query[name].tolist() for name in ("ap", "first_hit"))
    return {
        "name": [tracklet.name for tracklet in dataset.query],
        "pid": [int(tracklet.pid) for tracklet in dataset.query],
        # None, because JSON has no NaN.
        "ap": [value if hit else None for value, hit in zip(ap, first_hit, strict=True)],
        "first_hit": first_hit,
    }


def _loaded(rows: Tensor | StoredRows) -> Tensor:
    return rows if isinstance(rows, Tensor) else torch.from_numpy(rows[:])


def _attribute_scores(
    logits: Tensor, tracklets: Sequence[Tracklet], sizes: dict[str, int]
) -> dict[str, dict[str, float]]:
    """Scores over the tracklets whose table has all these attributes: another data set's may not."""
    of_this_table = [
        tracklet.attributes is not None and sizes.keys() <= tracklet.attributes.keys()
        for tracklet in tracklets
    ]
    labels = [
        attribute_labels(tracklet.attributes if known else None, sizes)
        for tracklet, known in zip(tracklets, of_this_table, strict=True)
    ]
    return metrics.attribute_scores(logits, torch.stack(labels), sizes)

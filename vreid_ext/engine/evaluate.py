"""Evaluation of a trained model: CMC, mAP and mINP with the protocol of its data set."""

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
from vreid_ext.engine.checkpoint import read_state, resolve_checkpoint, run_folder
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
    """Inputs and results of the evaluation of one test length.

    Attributes:
        model, dataset, recipe: arguments of `evaluate_model`.
        frames: T, number of frames per clip.
        query, gallery: features (Q,D), (G,D) of the data set's tracklets, on the CPU.
        itself: (Q,) index of the gallery row that is the same tracklet as the query, -1 if there is none.
        result: the metrics, including those of each query.
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
    features: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    observe: Callable[[Evaluated], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a model for each test length, with the settings `eval` and `input` of the recipe.

    Args:
        model: the model.
        dataset: the data set; query and gallery are used.
        recipe: the recipe.
        device: device of the model.
        features: folder in which the features are stored (`stored_features`), so that an interrupted call can
            be resumed. None: keep the features in memory.
        progress: called as `progress(clips_done, total_clips)`, counted for each test length.
        observe: called for each test length with the features and the metrics of each query.

    Returns:
        A dict that can be written as JSON:

            recipe, dataset, protocol
            junk        whether gallery tracklets with the query's person and camera are ignored
            metric      e.g. "cosine", or "re-ranked cosine" with re-ranking
            ap          definition of the average precision
            paper       source of the published metrics
            rows        one dict for each test length

        A row contains frames, sampling, mAP, mINP, rank1, rank5, rank10, rank20 (fractions), cmc, queries,
        valid_queries and gallery (counts), and `per_query`: lists of name, pid, ap and first_hit of each
        query, where ap is None for a skipped query. With re-ranking it also contains `rerank` (k1, k2,
        lambda_value), with the flip test `flip`, with corrupted frames `corrupt` (share, seed).
        If the recipe contains published metrics of the same kind, they are added as `paper_percent`. For a
        model with attribute streams, `attributes` contains accuracy, f1 and samples of each attribute, over
        the test tracklets that have all attributes of the stream.
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
            options = extraction(model, recipe, test, frames, device, progress)
            embedded = parts(model, extract_features(model, test.tracklets, **options))
            query, gallery = embedded["features"][test.query], embedded["features"][test.gallery]
            logits = embedded.get("attributes")
        else:
            folder = Path(features)
            stored = stored_features(model, test, recipe, frames, folder, device=device, progress=progress)
            query, gallery = stored.rows("query"), stored.rows("gallery")
            logits = _loaded(stored.rows(tensor="attributes")) if recognised else None
        result = test.evaluate(query, gallery, recipe, metric)
        if observe is not None:
            rows_of = _loaded(query), _loaded(gallery)
            observe(Evaluated(model, dataset, recipe, frames, *rows_of, test.itself, result))
        row: dict[str, Any] = {"frames": frames, "sampling": recipe.eval.sampling}
        if recipe.eval.rerank:
            row["rerank"] = rerank_options(recipe)
        if recipe.eval.flip:
            row["flip"] = True
        if recipe.eval.corrupt:
            row["corrupt"] = {"share": recipe.eval.corrupt, "seed": recipe.eval.corrupt_seed}
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
    features: str | Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Call `evaluate_model` for each data set of a recipe.

    Args:
        features: see `evaluate_model`; several data sets use one sub-folder each.
        options: see `evaluate_model`.

    Returns:
        The result of `evaluate_model`. For several data sets, `rows` contains the rows of all, each with its
        `dataset`, `protocol` and `junk`.
    """
    if len(datasets) == 1:
        return evaluate_model(model, datasets[0], recipe, features=features, **options)
    for each in datasets:  # check all data sets before the first one is evaluated
        Comparison(each).first_match()
    names = set_names(datasets)
    results = [
        evaluate_model(
            model, each, recipe.of_set(number), features=features and Path(features) / name, **options
        )
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
    features: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    observe: Callable[[Evaluated], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint, or the newest checkpoint of a run, and write the metrics as JSON.

    Under `torchrun` (`join_processes`), the processes share the work, and rank 0 writes the file.

    Args:
        path: checkpoint or run folder.
        overrides: `key=value` overrides for the checkpoint's recipe, e.g. test length, gallery or data set.
        out: the JSON file; default: `eval-<data set>-<sampling>-<frames>.json` in the run's folder, with
            `-corrupted` or `-reranked` appended to the name with corrupted frames or re-ranking. The metrics
            of each query are written next to it (`write_figures`).
        features, progress, observe: see `evaluate_model`.

    Returns:
        The result of `evaluate_model`, with the additional keys `checkpoint` and `file`. `per_query` is the
        name of the file with the metrics of each query.
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
    """Default output file of `evaluate_checkpoint`."""
    folder = resolve_checkpoint(Path(path))
    recipe = recipe_from_dict(read_state(folder)["recipe"], overrides)
    kinds = "-flipped" * recipe.eval.flip
    kinds += "-corrupted" * (recipe.eval.corrupt > 0) + "-reranked" * recipe.eval.rerank
    sets, lengths = "-".join(set_names(recipe.datasets)), "-".join(map(str, recipe.eval.frames))
    name = f"eval-{sets}-{recipe.eval.sampling}-{lengths}{kinds}"
    if folder.is_file():  # there may be several networks in a folder
        name = f"{folder.stem}-{name}"
    return run_folder(folder) / f"{name}.json"


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
    """Scores of the attributes `sizes`, over the tracklets that have all of them.

    A data set with a different attribute table may lack some.
    """
    labelled = [
        tracklet.attributes is not None and sizes.keys() <= tracklet.attributes.keys()
        for tracklet in tracklets
    ]
    labels = [
        attribute_labels(tracklet.attributes if known else None, sizes)
        for tracklet, known in zip(tracklets, labelled, strict=True)
    ]
    return metrics.attribute_scores(logits, torch.stack(labels), sizes)

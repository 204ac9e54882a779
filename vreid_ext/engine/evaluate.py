"""Retrieval figures of a trained model: CMC, mAP and mINP under the protocol of its data set."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vreid_ext import metrics
from vreid_ext.data import Tracklet, TrackletDataset, attribute_labels, set_names
from vreid_ext.engine.build import black_box_of, datasets_of, model_of, transforms_of
from vreid_ext.engine.checkpoint import describe_model, flush, load_weights, read_state, resolve_checkpoint
from vreid_ext.engine.config import Recipe, recipe_from_dict
from vreid_ext.engine.distributed import default_device, is_main, main_writes
from vreid_ext.engine.extract import extract_blocks, extract_features
from vreid_ext.engine.store import identity_of, store_features
from vreid_ext.losses.gather import world
from vreid_ext.metrics.features import DistanceFunction
from vreid_ext.metrics.protocol import Protocol
from vreid_ext.metrics.stored import StoredFeatures, StoredRows

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


class TestSet:
    """The tracklets of an evaluation, each once, and who is compared with whom.

    Attributes:
        tracklets: queries and gallery. A query that is part of the gallery is embedded once, and it never
            counts as its own match.
        query, gallery: index into `tracklets` of every query and gallery item.
        itself: (Q,) the gallery item that is the query itself, -1 where there is none.
    """

    __test__ = False  # for pytest, which takes it for a test case by its name

    def __init__(self, dataset: TrackletDataset) -> None:
        self.dataset = dataset
        query, gallery = dataset.query, dataset.gallery
        self.tracklets = list({tracklet.paths: tracklet for tracklet in (*query, *gallery)}.values())
        place = {tracklet.paths: index for index, tracklet in enumerate(self.tracklets)}
        self.query, self.gallery = ([place[each.paths] for each in part] for part in (query, gallery))
        in_gallery = {tracklet.paths: index for index, tracklet in enumerate(gallery)}
        self.itself = torch.tensor(
            [in_gallery.get(tracklet.paths, -1) for tracklet in query], dtype=torch.int64, device="cpu"
        )

    def first_match(self) -> tuple[int, int]:
        """A query and a gallery item of its person that counts for it, by their places.

        Raises:
            ValueError: there is none, so that there are no figures either.
        """
        sizes = len(self.dataset.query), len(self.dataset.gallery)
        protocol = Protocol(
            *ids(self.dataset),
            sizes=sizes,
            junk=self.dataset.junk,
            exclude=self.itself,
            device=torch.device("cpu"),
        )
        if not len(protocol.row):
            name = self.dataset.name
            raise ValueError(
                f"dataset: no query of {name} has a match in the gallery, so there are no figures; name the "
                "persons (`vreid tracklets --boxes`), or use `vreid extract` and `vreid search`"
            )
        return int(protocol.row[0]), int(protocol.index[0])

    def evaluate(
        self,
        query: Tensor | StoredRows,
        gallery: Tensor | StoredRows,
        recipe: Recipe,
        metric: str | DistanceFunction,
    ) -> metrics.ReIDResult:
        """Figures of query features (Q,D) and gallery features (G,D).

        Under `torchrun` every process compares with its part of the gallery; all get the figures. With
        re-ranking, which looks at all pairs, and with a distance function every process compares with all.
        """
        rank, size = world()
        part: Tensor | StoredRows | metrics.Shard = gallery
        rerank = rerank_options(recipe)
        if not callable(metric) and not rerank and 1 < size <= len(gallery):
            first, stop = (len(gallery) * number // size for number in (rank, rank + 1))
            rows = gallery[first:stop] if isinstance(gallery, Tensor) else gallery.part(first, stop)
            part = metrics.Shard(rows, first, len(gallery))
        return metrics.evaluate(
            query,
            part,
            *ids(self.dataset),
            metric=metric,
            ap=recipe.eval.ap,
            junk=self.dataset.junk,
            exclude=self.itself,
            rerank=rerank or False,
        )


def metric_of(model: nn.Module, recipe: Recipe) -> str | DistanceFunction:
    """How features of the model are compared: by its own `distance`, or as the recipe says.

    Raises:
        ValueError: re-ranking is asked for where the model has a distance of its own.
    """
    distance: DistanceFunction | None = getattr(model, "distance", None)
    if distance is not None and recipe.eval.rerank:
        raise ValueError(
            f"eval.rerank: expected false for model {recipe.model['name']!r}, which compares by a distance "
            "function of its own, got true"
        )
    return distance or recipe.eval.metric


def rerank_options(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of `ops.k_reciprocal`; empty where the recipe does not re-rank."""
    if not recipe.eval.rerank:
        return {}
    k1, k2, weight = recipe.eval.rerank_k1, recipe.eval.rerank_k2, recipe.eval.rerank_lambda
    return {"k1": k1, "k2": k2, "lambda_value": weight}


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
        queries, valid_queries, gallery, and, where the recipe has them for distances of the same kind, the
        published figures `paper_percent`. For a model with attribute streams also `attributes`: accuracy, f1
        and samples of each, over the test tracklets that have the stream's attributes.
    """
    test = TestSet(dataset)
    test.first_match()
    metric = metric_of(model, recipe)
    streams = _streams(model)
    rows = []
    for frames in recipe.eval.frames:
        query: Tensor | StoredRows
        gallery: Tensor | StoredRows
        if features is None:
            options = _extraction(model, recipe, frames, device, progress)
            embedded = _parts(model, extract_features(model, test.tracklets, **options))
            query, gallery = embedded["features"][test.query], embedded["features"][test.gallery]
            logits = embedded.get("attributes")
        else:
            stored = stored_features(model, test, recipe, frames, features, device=device, progress=progress)
            query, gallery = stored.rows("query"), stored.rows("gallery")
            logits = _loaded(stored.rows(tensor="attributes")) if streams else None
        result = test.evaluate(query, gallery, recipe, metric)
        if observe is not None:
            parts = _loaded(query), _loaded(gallery)
            observe(Evaluated(model, dataset, recipe, frames, *parts, test.itself, result))
        row: dict[str, Any] = {"frames": frames, "sampling": recipe.eval.sampling}
        if recipe.eval.rerank:
            row["rerank"] = rerank_options(recipe)
        row |= {"mAP": result.mAP, "mINP": result.mINP}
        row |= {f"rank{k}": float(result.cmc[k - 1]) for k in RANKS if k <= len(result.cmc)}
        row |= {"queries": len(dataset.query), "valid_queries": result.valid_queries}
        row["gallery"] = len(dataset.gallery)
        row["cmc"] = result.cmc.tolist()
        if frames in recipe.paper.rows and recipe.paper.rerank == recipe.eval.rerank:
            row["paper_percent"] = recipe.paper.rows[frames]
        if logits is not None:
            row["attributes"] = {}
            widths = [sum(sizes.values()) for sizes in streams.values()]
            for sizes, part in zip(streams.values(), logits.split(widths, 1), strict=True):
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
        TestSet(each).first_match()
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


def stored_features(
    model: nn.Module,
    test: TestSet,
    recipe: Recipe,
    frames: int,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> StoredFeatures:
    """The features of a test set in `folder`, or in `folder/<frames>` where the recipe has several lengths.

    What is missing there is extracted; under `torchrun` the processes share it.

    Raises:
        ValueError: the folder holds something else.
    """

    def embed(blocks: Sequence[range]) -> Iterator[dict[str, Tensor]]:
        options = _extraction(model, recipe, frames, device, progress)
        for rows in extract_blocks(model, test.tracklets, blocks, **options):
            yield _parts(model, rows)

    metric = metric_of(model, recipe)
    return store_features(
        folder if len(recipe.eval.frames) == 1 else folder / str(frames),
        identity_of(model, recipe, frames, test.tracklets),
        test.tracklets,
        embed,
        splits={"query": test.query, "gallery": test.gallery},
        shard_rows=recipe.eval.shard,
        metric=None if callable(metric) else metric,
        protocol=test.dataset.protocol,
    )


def _extraction(
    model: nn.Module,
    recipe: Recipe,
    frames: int,
    device: torch.device | str,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """How a recipe's test clips are embedded, for `extract_features` and `extract_blocks`."""
    return {
        "frames": frames,
        "sampling": recipe.eval.sampling,
        "transform": transforms_of(recipe.input)[1],
        "chunk": recipe.eval.chunk,
        "workers": recipe.train.workers,
        "device": device,
        "progress": progress,
        "forward": _feature_then_attributes(model) if _streams(model) else None,
        "black_box": black_box_of(recipe.dataset),
        "seed": recipe.seed,
    }


def _parts(model: nn.Module, rows: Tensor) -> dict[str, Tensor]:
    """Rows of `_feature_then_attributes` by what they hold."""
    width = sum(sum(sizes.values()) for sizes in _streams(model).values())
    feature, logits = rows.split([rows.shape[1] - width, width], 1)
    return {"features": feature} | ({"attributes": logits} if width else {})


def _loaded(rows: Tensor | StoredRows) -> Tensor:
    return rows if isinstance(rows, Tensor) else torch.from_numpy(rows[:])


def _streams(model: nn.Module) -> dict[str, dict[str, int]]:
    """The attributes that a model recognises, with their numbers of classes, stream by stream."""
    streams: dict[str, dict[str, int]] = getattr(model, "attribute_sizes", {})
    return streams


def _feature_then_attributes(model: nn.Module) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The feature and all attribute logits in one row, so that one pass over the tracklets gives both."""

    def forward(clips: Tensor, valid: Tensor | None) -> Tensor:
        return torch.cat(model.feature_and_attributes(clips, valid), 1)  # type: ignore[operator]

    return forward


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


def open_checkpoint(path: str | Path, overrides: Iterable[str] = ()) -> tuple[nn.Module, Recipe, Path]:
    """A checkpoint's model in evaluation mode, its recipe with overrides, and its folder.

    A run's folder stands for its newest checkpoint.

    Raises:
        ValueError: no checkpoint there, or overrides that make another model of it (the message names both).
    """
    folder = resolve_checkpoint(Path(path))
    state = read_state(folder)
    recipe = recipe_from_dict(state["recipe"], overrides)
    model = model_of(recipe.model, state["num_classes"], start_weights=False)
    load_weights(folder, model, describe_model(recipe.model, state["num_classes"]))
    return model.eval(), recipe, folder


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
            with `-reranked` behind the frames where that was asked for.
        features, progress, observe: as for `evaluate_model`.

    Returns:
        What `evaluate_model` returns, with `checkpoint` and `file`.
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
        result |= {"checkpoint": str(folder), "file": str(file)}
        if is_main():
            write_json(file, result)
    return result


def figures_file(path: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Where `evaluate_checkpoint` writes the figures if it is not told otherwise."""
    folder = resolve_checkpoint(Path(path))
    recipe = recipe_from_dict(read_state(folder)["recipe"], overrides)
    sets, lengths = "-".join(set_names(recipe.datasets)), "-".join(map(str, recipe.eval.frames))
    name = f"eval-{sets}-{recipe.eval.sampling}-{lengths}{'-reranked' * recipe.eval.rerank}"
    return folder.parent.parent / f"{name}.json"


def write_json(path: Path, value: Any) -> None:
    """Write through a temporary name, so that the file is never half there."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    flush(temporary)
    temporary.rename(path)


def ids(dataset: TrackletDataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(q_pids, g_pids, q_camids, g_camids), as `metrics.evaluate` and `metrics.rank` take them."""
    q_pids, g_pids, q_camids, g_camids = (
        torch.tensor([getattr(tracklet, which) for tracklet in part], dtype=torch.int64, device="cpu")
        for which in ("pid", "camid")
        for part in (dataset.query, dataset.gallery)
    )
    return q_pids, g_pids, q_camids, g_camids

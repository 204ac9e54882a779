"""Adaptation of a trained model to a data set whose persons are not known.

    OUT/recipe.yaml          the recipe of the adaptation, with its settings in `adapt`
    OUT/start.json           the checkpoint from which it starts
    OUT/before.json          evaluation of that checkpoint, if query and gallery have known persons
    OUT/rounds/00            the first round: labels.json (clusters) and a run that is trained with them
    OUT/checkpoints/step-*   the adapted model
    OUT/after.json           its evaluation
    OUT/result.json          what the adaptation gained, and the clusters of each round

A round is an ordinary run. Its first checkpoint, at step 0, contains the weights of the round before and the
centroids of the clusters. It is therefore resumed like any run, and its data set has the clusters as persons.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import metrics
from vreid_ext._files import write_json
from vreid_ext.data import TrackletDataset, write_labels
from vreid_ext.data.labels import read_labels
from vreid_ext.distributed import default_device, is_main, join_processes, main_writes, wait_for_everyone
from vreid_ext.engine.build import model_of, one_dataset_of
from vreid_ext.engine.checkpoint import Position, checkpoints, read_position, save_checkpoint
from vreid_ext.engine.comparison import Comparison, metric_of
from vreid_ext.engine.config import load_recipe
from vreid_ext.engine.evaluate import evaluate_model
from vreid_ext.engine.extract import extract_features
from vreid_ext.engine.features import extraction, sha256, streams
from vreid_ext.engine.figures import write_figures
from vreid_ext.engine.objective import objective_of
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.optim import build_optimizer, learning_rate
from vreid_ext.engine.recipe import Paper, Recipe, Schedule, differences
from vreid_ext.engine.run_comparison import compare_runs
from vreid_ext.engine.seeds import seed_of
from vreid_ext.engine.train import FREE_KEYS, train
from vreid_ext.metrics.clustering import check_installed

# Settings that replace those of the run, unless they are overridden. As in SpCL, a memory is the only loss,
# with temperature 0.05 and momentum 0.2.
OVERRIDES = (
    "loss.softmax=0",
    "loss.triplet=0",
    "loss.pml=",
    "loss.center=0",
    "loss.oim=1",
    "loss.oim_scalar=20",
    "loss.oim_momentum=0.2",
    "schedule.name=cosine",
    "schedule.milestones=[]",
    "schedule.warmup_epochs=0",
    "stages=[]",
)

Report = Callable[[dict[str, Any]], None]


def adapt(
    checkpoint: str | Path,
    overrides: Iterable[str],
    out: str | Path,
    *,
    quiet: bool = False,
    progress: Callable[[int, int], None] | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Adapt a trained model to a data set without using its labels, or resume the adaptation in `out`.

    Each round extracts the features of the training tracklets, clusters them (`metrics.cluster`), and trains
    the model with the clusters as persons (after SpCL, Ge et al., NeurIPS 2020). The loss is that of
    `losses.OIMLoss`, whose table starts with the centroids of the clusters: with x the L2-normalized feature
    of a clip and m_c the entry of cluster c,

        loss = -log exp(x.m_y / t) / sum_c exp(x.m_c / t),    m_y <- normalized(mu m_y + (1 - mu) x)

    with t = 1 / loss.oim_scalar and mu = loss.oim_momentum. The persons of the training tracklets are used
    only to report how good the clusters are, and those of query and gallery only in the two evaluations.

    Args:
        checkpoint: checkpoint or run folder of the model.
        overrides: `key=value` overrides of its recipe: the new data set, and settings of the adaptation such
            as `adapt.eps=0.5`. Overrides of `schedule` count rounds instead of epochs.
        out: folder of the adaptation, see the module's docstring. It can be used like that of a run.
        quiet: do not show the progress bars of the trainings.
        progress: called as `progress(clips_done, total_clips)` for each extraction and evaluation.
        report: called with the facts of each round: round, clusters, noise, tracklets and, if training
            tracklets have known persons, scores (`metrics.ClusterScores`).

    Returns:
        The result of `evaluate_model` for the adapted model, without rows if query and gallery have no known
        persons, with the additional keys

            rounds       the facts of each round
            before       rows of the evaluation before the adaptation
            differences  mAP and rank-k after minus before, with intervals over persons (`compare_runs`)

    Raises:
        ValueError: the model or the data cannot be used, all tracklets are noise, there are fewer clusters
            than batch.p, or `out` contains other files.
        ImportError: scikit-learn is not installed.
    """
    check_installed()
    join_processes()
    out = Path(out)
    model, recipe, folder = open_checkpoint(checkpoint, [*OVERRIDES, *overrides])
    recipe = replace(recipe, paper=Paper())
    start = {"checkpoint": str(folder), "weights": sha256(model.state_dict())}
    _claim(out, recipe, start)
    if (out / "result.json").is_file():
        finished: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
        return finished
    adaptation = _Adaptation(model, recipe, out, quiet, progress, report)
    with main_writes("out", out, inside=True):
        return adaptation.run(start)


class _Adaptation:
    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        out: Path,
        quiet: bool,
        progress: Callable[[int, int], None] | None,
        report: Report | None,
    ) -> None:
        self.model, self.recipe, self.out = model, recipe, out
        self.quiet, self.progress, self.report = quiet, progress, report
        self.device = default_device()
        self.metric = metric_of(model, recipe)
        if callable(self.metric) or streams(model):
            kind = "its own distance function" if callable(self.metric) else "attribute streams"
            raise ValueError(
                f"checkpoint: expected a model that is compared by {recipe.eval.metric} distance and trained "
                f"without attributes, got {recipe.model['name']!r} with {kind}"
            )
        self.data = one_dataset_of(recipe)
        if len(self.data.train) <= recipe.adapt.k1:
            raise ValueError(
                f"adapt.k1: expected a number below the {len(self.data.train)} training tracklets of "
                f"{self.data.name}, got {recipe.adapt.k1}"
            )
        self.test: Comparison | None = Comparison(self.data)
        try:
            self.test.first_match()
        except ValueError:  # no known persons
            self.test = None

    def run(self, start: dict[str, Any]) -> dict[str, Any]:
        if is_main():
            self.out.mkdir(parents=True, exist_ok=True)
            self.recipe.save(self.out / "recipe.yaml")
            write_json(self.out / "start.json", start)
        self._evaluate("before")
        rounds = self.recipe.adapt.rounds
        started = [number for number in range(rounds) if checkpoints(self._folder(number))]
        for number in range(max(started, default=0), rounds):
            if number not in started:
                self._start(number)
            self._show(number)
            if number and is_main():
                shutil.rmtree(self._folder(number - 1) / "checkpoints", ignore_errors=True)
            train(self._recipe(number), self._folder(number), quiet=self.quiet)
        self.model, _, folder = open_checkpoint(self._folder(rounds - 1))
        final = self.out / "checkpoints" / f"step-{read_position(folder).step:08d}"
        if is_main() and not final.exists():
            save_checkpoint(final, self.model, self.recipe.to_dict(), self._classes(rounds - 1))
        wait_for_everyone()
        result = self._evaluate("after") or {
            "recipe": self.recipe.name, "dataset": self.data.name, "protocol": self.data.protocol, "rows": [],
        }  # fmt: skip
        result |= {"rounds": [self._facts(number) for number in range(rounds)]}
        if self.test is not None:
            sides = {name: [self.out / f"{name}.json"] for name in ("before", "after")}
            before = json.loads((self.out / "before.json").read_text(encoding="utf-8"))
            result |= {"before": before["rows"], "differences": compare_runs(sides)["differences"]}
        wait_for_everyone()
        if is_main():
            write_json(self.out / "result.json", result)
            shutil.rmtree(self._folder(rounds - 1) / "checkpoints", ignore_errors=True)
        return result

    def _folder(self, number: int) -> Path:
        return self.out / "rounds" / f"{number:02d}"

    def _recipe(self, number: int) -> Recipe:
        """The recipe of a round. The schedule counts rounds, so the learning rate of a round is constant."""
        recipe = self.recipe
        lr = learning_rate(recipe.optim.lr, recipe.schedule, number, recipe.adapt.rounds)
        return replace(
            recipe,
            seed=seed_of(recipe.seed, number),
            dataset=replace(recipe.dataset, labels=str((self._folder(number) / "labels.json").absolute())),
            optim=replace(recipe.optim, lr=lr),
            schedule=Schedule(),
            train=replace(recipe.train, epochs=recipe.adapt.epochs, evaluate=False),
        )

    def _start(self, number: int) -> None:
        """Cluster the training tracklets, and write the labels and the first checkpoint of a round."""
        if number:
            self.model, _, _ = open_checkpoint(self._folder(number - 1))
        features = self._features()
        labels, facts = self._clusters(features, number)
        classes, recipe = int(labels.max()) + 1, self._recipe(number)
        torch.manual_seed(recipe.seed)
        model = model_of(recipe, classes, start_weights=False)
        _transfer(self.model, model)
        objective = objective_of(recipe.loss, model, classes)
        if objective.oim is not None:
            objective.oim.table.copy_(_centroids(features, labels, classes))
        if is_main():
            folder = self._folder(number)
            folder.mkdir(parents=True, exist_ok=True)
            names = [tracklet.name for tracklet in self.data.train]
            kept = {name: label for name, label in zip(names, labels.tolist(), strict=True) if label >= 0}
            write_labels(folder / "labels.json", kept, **facts)
            recipe.save(folder / "recipe.yaml")
            save_checkpoint(
                folder / "checkpoints" / f"step-{0:08d}", model, recipe.to_dict(), classes,
                optimizer=build_optimizer(model, recipe.optim, objective), objective=objective,
                position=Position(),
            )  # fmt: skip
        wait_for_everyone()

    def _features(self) -> Tensor:
        """(N,D) features of the training tracklets."""
        self.model.to(self.device)
        recipe = replace(self.recipe, eval=replace(self.recipe.eval, corrupt=0.0))
        options = extraction(
            self.model, recipe, Comparison(self.data), recipe.eval.frames[0], self.device, self.progress
        )
        return extract_features(self.model, self.data.train, **options)

    def _clusters(self, features: Tensor, number: int) -> tuple[Tensor, dict[str, Any]]:
        """The class of each training tracklet, -1 if it is not used, and facts about the clusters."""
        settings = self.recipe.adapt
        assert not callable(self.metric)
        try:
            found = metrics.cluster(
                features, method=settings.method, metric=self.metric, eps=settings.eps,
                min_samples=settings.min_samples, min_cluster_size=settings.min_cluster_size,
                k1=settings.k1, k2=settings.k2, pids=_persons(self.data),
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"round {number}: adapt.{error}") from error
        if found.clusters < self.recipe.batch.p:
            raise ValueError(
                f"round {number}: adapt.eps: expected at least batch.p = {self.recipe.batch.p} clusters, got "
                f"{found.clusters} clusters and {found.noise} noise of {len(features)} tracklets; change "
                "adapt.eps or adapt.min_samples, or lower batch.p"
            )
        labels = found.labels.clone()
        if settings.noise == "own":
            alone = labels < 0
            labels[alone] = found.clusters + torch.arange(found.noise, device="cpu")
        facts: dict[str, Any] = {"clusters": found.clusters, "noise": found.noise, "tracklets": len(features)}
        if found.scores is not None:
            scores = found.scores._asdict()
            facts["scores"] = {name: None if math.isnan(value) else value for name, value in scores.items()}
        return labels, facts

    def _facts(self, number: int) -> dict[str, Any]:
        content = read_labels(self._folder(number) / "labels.json")
        facts = {name: value for name, value in content.items() if name not in ("format", "labels")}
        return {"round": number, **facts}

    def _classes(self, number: int) -> int:
        return len(set(read_labels(self._folder(number) / "labels.json")["labels"].values()))

    def _show(self, number: int) -> None:
        if self.report is not None and is_main():
            self.report(self._facts(number))

    def _evaluate(self, name: str) -> dict[str, Any] | None:
        """Evaluate the model and write the figures; read them if that has been done."""
        file = self.out / f"{name}.json"
        if self.test is None:
            return None
        if file.is_file():
            figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return figures
        model = self.model.to(self.device)
        result = evaluate_model(model, self.data, self.recipe, device=self.device, progress=self.progress)
        return write_figures(file, result)


def _claim(out: Path, recipe: Recipe, start: dict[str, Any]) -> None:
    """Check that the folder is new or empty, or contains an adaptation with this recipe and start."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {str(out)!r}")
    if (out / "start.json").is_file() and (out / "recipe.yaml").is_file():
        existing = json.loads((out / "start.json").read_text(encoding="utf-8"))
        changed = differences(load_recipe(out / "recipe.yaml"), recipe, ignore=FREE_KEYS)
        if existing["weights"] != start["weights"]:
            changed.append(f"checkpoint: {existing['checkpoint']}, {start['checkpoint']}")
        if changed:
            raise ValueError(
                f"out: expected the same adaptation, got another one in {str(out)!r}; choose another folder "
                f"or resume with the same arguments. Keys (existing, new): {'; '.join(changed)}"
            )
        return
    others = [path.name for path in out.iterdir()] if out.exists() else []
    if any(name != "recipe.yaml" and not name.startswith(".") for name in others):  # start.json comes second
        raise ValueError(
            f"out: expected a new or empty folder or an adaptation to resume, got {str(out)!r} with other "
            "files"
        )


def _persons(data: TrackletDataset) -> Tensor | None:
    """Persons of the training tracklets, for scores; None if no person has two tracklets."""
    pids = torch.tensor([tracklet.pid for tracklet in data.train], dtype=torch.int64, device="cpu")
    return pids if len(pids.unique()) < len(pids) else None


def _centroids(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(classes,D) normalized means of the normalized features of each class."""
    used = labels >= 0
    total = torch.zeros(classes, features.shape[1], dtype=torch.float32, device="cpu")
    return F.normalize(total.index_add_(0, labels[used], F.normalize(features[used])))


def _transfer(source: nn.Module, target: nn.Module) -> None:
    """Copy all weights, except those whose shape depends on the number of classes."""
    weights = target.state_dict()
    for name, value in source.state_dict().items():
        if weights[name].shape == value.shape:
            weights[name] = value
    target.load_state_dict(weights)

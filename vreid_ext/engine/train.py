"""Training.

All random numbers depend only on (seed, epoch, batch, rank), and the learning rate depends only on the epoch.
A checkpoint therefore needs no generator state: weights, optimizer state and position are sufficient. On the
CPU, a resumed run gives bitwise the same result as an uninterrupted one.
"""

import json
import math
import shutil
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext._files import write_json
from vreid_ext.backends.errors import NotFiniteError
from vreid_ext.data import ClipDataset, DatasetError, TrackletDataset, join_training
from vreid_ext.distributed import (
    join_processes,
    main_writes,
    mean_over_processes,
    wait_for_everyone,
    world,
)
from vreid_ext.engine.build import black_box_of, datasets_of, model_of, sampler_of, takes, transforms_of
from vreid_ext.engine.checkpoint import (
    Position,
    checkpoints,
    describe_model,
    load_objective,
    load_optimizer,
    load_weights,
    read_position,
    save_checkpoint,
)
from vreid_ext.engine.comparison import Comparison
from vreid_ext.engine.config import load_recipe
from vreid_ext.engine.evaluate import evaluate_sets
from vreid_ext.engine.execution import Execution
from vreid_ext.engine.figures import write_figures
from vreid_ext.engine.identity_memory import fill_memory
from vreid_ext.engine.loader import load
from vreid_ext.engine.objective import objective_of
from vreid_ext.engine.optim import build_optimizer, learning_rate, moving_average, set_learning_rate
from vreid_ext.engine.progress import RunProgress
from vreid_ext.engine.readiness import check_batch, check_images, images_of, rehearse_evaluation
from vreid_ext.engine.recipe import Recipe, differences
from vreid_ext.engine.runlog import RunLog
from vreid_ext.engine.seeds import seed_of
from vreid_ext.engine.stages import Stages

# Keys that may change when a run is resumed, because they do not affect its result.
FREE_KEYS = ("dataset.root", "train.workers", "train.checkpoint_every", "train.checkpoint_steps")

NOT_LOGGED = ("cmc", "paper_percent", "attributes", "per_query")  # of a row of an evaluation


def train(recipe: Recipe, out: str | Path, *, quiet: bool = False) -> dict[str, Any]:
    """Train a recipe, or resume its run if `out` contains checkpoints, and evaluate it.

    A run can be extended: with a larger `train.epochs`, a finished or interrupted run is resumed and ends as
    if it had been started with that number of epochs. This is not supported for the cosine schedule, because
    its learning rates depend on the number of epochs.

    Before the first step, one query is evaluated with one of its matches, and all images needed by the
    evaluation are decoded. Errors in labels, images or the recipe are therefore raised before the training
    and not in the evaluation after it.

    Args:
        recipe: the recipe.
        out: folder of the run. Contains recipe.yaml, log.jsonl, tensorboard/, checkpoints/ (only the newest
            is kept), result.json, and result.queries.json with the metrics of each query.
        quiet: do not show a progress bar.

    Returns:
        The result of the last evaluation, see `evaluate_model`. With train.evaluate=false: the names of
        recipe and data set, without rows.

    Raises:
        ValueError: the data or the recipe cannot be used, or `out` contains other files. Nothing is written.
        InUseError: another process trains in `out`.
        FloatingPointError: a loss or a weight is not finite. For a loss, the tracklets of the batch are
            written to `out`/not_finite-<rank>.json. The last checkpoint contains only finite weights.
    """
    out = Path(out)
    join_processes()
    if is_finished(out, recipe):
        finished: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
        return finished
    with main_writes("out", out, inside=True):
        return _Run(recipe, out, quiet).run()


def is_finished(out: Path, recipe: Recipe) -> bool:
    """Whether the folder contains the final result of this recipe.

    Raises:
        ValueError: the folder contains other files or a run of another recipe.
    """
    extends = _claim(out, recipe)
    return not extends and (out / "result.json").is_file()


def unlabelled(data: TrackletDataset) -> int:
    """Number of training tracklets without attributes. Issues a warning if there are any.

    Raises:
        DatasetError: all training tracklets are without attributes.
    """
    missing = sum(tracklet.attributes is None for tracklet in data.train)
    if missing == len(data.train):
        raise DatasetError(
            f"{data.root}: expected training tracklets with attributes, which this model requires, got none; "
            "add the attribute table to this folder, or set dataset.options.attributes=FILE"
        )
    if missing:
        warnings.warn(
            f"{missing} of {len(data.train)} training tracklets of {data.name} have no attributes; the "
            "attribute loss ignores them",
            stacklevel=2,
        )
    return missing


def synchronise(model: nn.Module, processes: int, device: torch.device) -> nn.Module:
    """Convert the model to SyncBatchNorm if there are several processes. The state dict does not change.

    Raises:
        ValueError: there are several processes on the CPU, which SyncBatchNorm does not support.
    """
    if processes == 1:
        return model
    if device.type == "cpu":
        raise ValueError(f"train.sync_bn: expected one GPU for each of {processes} processes, got the CPU")
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


class _Run:
    def __init__(self, recipe: Recipe, out: Path, quiet: bool) -> None:
        self.recipe, self.out = recipe, out
        # The classifier gets no gradient without the softmax term, and frozen parts get none in their stage.
        idle = not recipe.loss.softmax or bool(recipe.stages)
        self.execution = Execution(recipe.train.precision, idle=idle)
        self.rank, processes = world()
        self.main = self.rank == 0
        self.datasets = datasets_of(recipe)
        several = len(self.datasets) > 1
        self.data: TrackletDataset = join_training(self.datasets) if several else self.datasets[0]
        tests = [Comparison(each) for each in self.datasets if recipe.train.evaluate]
        for test in tests:
            test.first_match()
        train_transform, _ = transforms_of(recipe.input)
        self.takes = takes(recipe.model)
        self.sampler = sampler_of(recipe, self.datasets)

        saved = checkpoints(out)
        classes = self.data.num_train_pids
        torch.manual_seed(seed_of(recipe.seed))
        model = model_of(recipe, classes, start_weights=not saved)
        attribute_sizes = getattr(model, "attribute_sizes", {})
        self.attributes = [name for stream in attribute_sizes.values() for name in stream]
        if several:  # a data set with another attribute table may lack some attributes of the model
            known = set(self.attributes)
            self.data.train = [
                item if known <= (item.attributes or {}).keys() else replace(item, attributes=None)
                for item in self.data.train
            ]
        self.unlabelled = unlabelled(self.data) if self.attributes else 0
        self.clips = ClipDataset(
            self.data.train,
            recipe.input.frames,
            recipe.input.sampling,
            train_transform,
            self.data.labels,
            self.attributes or None,
            black_box_of(recipe.dataset),
        )
        if recipe.train.sync_bn:
            model = synchronise(model, processes, self.execution.device)
        model.to(self.execution.device)
        if not saved:
            fill_memory(model, self.data, recipe, self.execution.device)
        self.objective = objective_of(recipe.loss, model, classes).to(self.execution.device)
        optimizer = build_optimizer(model, recipe.optim, self.objective)
        check_batch(recipe, model)
        self.position = Position()
        if saved:
            load_weights(saved[-1], model, describe_model(recipe.model, classes))
            load_optimizer(saved[-1], optimizer)
            load_objective(saved[-1], self.objective)
            self.position = read_position(saved[-1])
        self.average = None
        if recipe.train.ema:
            self.average = moving_average(model, recipe.train.ema, self.position.step)
            if saved:
                load_weights(saved[-1], model, describe_model(recipe.model, classes), current=True)
        self.stages = Stages(model, recipe.stages)
        self.model, self.optimizer = self.execution.wrap(model), optimizer
        if self.execution.scaler is not None and self.position.scaler:
            self.execution.scaler.load_state_dict(self.position.scaler)

        self.progress = RunProgress(recipe.train.epochs, len(self.sampler), enabled=self.main and not quiet)
        if tests:
            device = self.execution.device
            rehearse_evaluation(self.execution.unwrap(self.model), self.datasets, recipe, device)
        if not saved:
            with self.progress:
                images = [each for test in tests for each in images_of(recipe, test)]
                check_images(images, self.progress.check)
        if self.main:
            out.mkdir(parents=True, exist_ok=True)
            (out / "result.json").unlink(missing_ok=True)  # outdated if the run is extended
            recipe.save(out / "recipe.yaml")
            for path in out.glob("not_finite-*.json"):  # from a previous start
                path.unlink()
        self.log = RunLog(out, self.position.log_bytes, self.position.step) if self.main else None

    def run(self) -> dict[str, Any]:
        result: dict[str, Any] = {"recipe": self.recipe.name, "dataset": self.data.name, "rows": []}
        epochs, position = self.recipe.train.epochs, self.position
        try:
            if self.attributes and position == Position():
                labelled = len(self.data.train) - self.unlabelled
                self._write("attributes", labelled=labelled, unlabelled=self.unlabelled)
            with self.progress:
                for epoch in range(position.epoch, epochs):
                    self._train_epoch(epoch)
                    last = epoch == epochs - 1
                    # Save before the evaluation: if it is interrupted, the epoch need not be repeated.
                    if last or _due(epoch, self.recipe.train.checkpoint_every):
                        self._save()
                    steps = max(1, position.batch)
                    self._write("epoch", epoch=epoch, lr=self._lr(epoch), **_scaled(position.sums, 1 / steps))
                    if self.recipe.train.evaluate and (last or _due(epoch, self.recipe.train.eval_every)):
                        result = self._evaluate(epoch)
                    position.epoch, position.batch, position.sums = epoch + 1, 0, {}
        finally:
            if self.log is not None:
                self.log.close()
        result = write_figures(self.out / "result.json", result)
        wait_for_everyone()
        return result

    def _train_epoch(self, epoch: int) -> None:
        position, accumulate = self.position, self.recipe.batch.accumulate
        set_learning_rate(self.optimizer, self._lr(epoch))
        self.model.train()
        self.stages.enter(epoch)
        self.sampler.set_epoch(epoch)
        remaining = list(self.sampler)[position.batch :]
        self.optimizer.zero_grad()
        for batch in load(self.clips, remaining, self.recipe.train.workers):
            first = position.batch - position.batch % accumulate
            group_size = min(accumulate, len(self.sampler) - first)
            ends_step = position.batch + 1 == first + group_size
            terms = self._backward(batch, epoch, group_size, ends_step)
            position.batch += 1
            position.sums = {name: position.sums.get(name, 0.0) + value for name, value in terms.items()}
            if not ends_step:
                continue
            self.execution.step(self.optimizer)
            if self.average is not None:
                self.average.update_parameters(self.execution.unwrap(self.model))
            self.optimizer.zero_grad()
            position.step += 1
            self._write("step", epoch=epoch, **terms)
            self.progress.step(epoch, position.batch, terms["loss"])
            every = self.recipe.train.checkpoint_steps
            if every and position.step % every == 0 and position.batch < len(self.sampler):
                self._save()

    def _backward(
        self, batch: dict[str, Tensor], epoch: int, group_size: int, ends_step: bool
    ) -> dict[str, float]:
        """Accumulate the gradients of one batch, and return its loss terms averaged over the processes."""
        torch.manual_seed(seed_of(self.recipe.seed, epoch, self.position.batch, self.rank))
        device = self.execution.device
        with nullcontext() if ends_step else self.execution.accumulates(self.model):
            inputs = {name: batch[name].to(device) for name in self.takes if name in batch}
            clips = batch["clip"].to(device, non_blocking=True)
            output = self.execution.forward(self.model, clips, **inputs)
            try:
                attributes = batch["attributes"].to(device) if self.attributes else None
                terms = self.objective(output, batch["label"].to(device), attributes)
            except NotFiniteError as error:
                raise self._not_finite(str(error)) from error
            values = mean_over_processes(terms)
            for name, value in values.items():
                if not math.isfinite(value):
                    raise self._not_finite(f"{name} is {value}")
            self.execution.backward(terms["loss"] / group_size)
        return values

    def _not_finite(self, what: str) -> FloatingPointError:
        """Write the tracklets of the current batch, one of which may be the cause, and return the error."""
        epoch, number = self.position.epoch, self.position.batch
        batch = list(self.sampler)[number]
        tracklets = [
            {"name": item.name, "pid": item.pid, "camid": item.camid, "seed": seed}
            for item, seed in ((self.data.train[index], seed) for index, seed in batch)
        ]
        path = self.out / f"not_finite-{self.rank}.json"
        write_json(path, {"epoch": epoch, "batch": number, "what": what, "tracklets": tracklets})
        return FloatingPointError(
            f"epoch {epoch}, batch {number}: {what}; the tracklets of this batch are listed in {path}; lower "
            "optim.lr, raise schedule.warmup_epochs or check the data"
        )

    def _check_weights(self) -> None:
        """Raise if a weight is not finite, before it is saved or evaluated.

        Gradients can be non-finite even if the losses are finite.
        """
        for name, value in self.execution.unwrap(self.model).state_dict().items():
            if not value.isfinite().all():
                raise FloatingPointError(
                    f"epoch {self.position.epoch}, after {self.position.batch} batches: {name}: expected "
                    "finite weights, got NaN or infinity, although the losses are finite; lower optim.lr or "
                    "raise schedule.warmup_epochs"
                )

    def _evaluate(self, epoch: int) -> dict[str, Any]:
        self._check_weights()
        result = evaluate_sets(
            self._evaluated(), self.datasets, self.recipe,
            device=self.execution.device, progress=self.progress.evaluation,
        )  # fmt: skip
        for row in result["rows"]:
            kind = f"eval-{row['dataset']}" if "dataset" in row else "eval"
            figures = {name: row[name] for name in row if name not in NOT_LOGGED}
            figures |= {
                f"{name}_{score}": values[score]
                for name, values in row.get("attributes", {}).items()
                for score in ("accuracy", "f1")
            }
            self._write(kind, epoch=epoch, **figures)
        return result

    def _evaluated(self) -> nn.Module:
        """The model of the evaluation and of the checkpoints."""
        return self.execution.unwrap(self.model) if self.average is None else self.average.module

    def _save(self) -> None:
        """Write a checkpoint, then remove the older ones."""
        self._check_weights()
        if self.main:
            assert self.log is not None
            self.position.log_bytes = self.log.length()
            if self.execution.scaler is not None:
                self.position.scaler = self.execution.scaler.state_dict()
            folder = self.out / "checkpoints" / f"step-{self.position.step:08d}"
            if not folder.exists():
                save_checkpoint(
                    folder,
                    self._evaluated(),
                    self.recipe.to_dict(),
                    self.data.num_train_pids,
                    current=None if self.average is None else self.execution.unwrap(self.model),
                    optimizer=self.optimizer,
                    objective=self.objective,
                    position=self.position,
                )
            newest = checkpoints(self.out)[-1]
            # Also removes incomplete checkpoints that a killed process left behind.
            for old in set(newest.parent.iterdir()) - {newest}:
                shutil.rmtree(old)
        wait_for_everyone()

    def _lr(self, epoch: int) -> float:
        return learning_rate(self.recipe.optim.lr, self.recipe.schedule, epoch, self.recipe.train.epochs)

    def _write(self, kind: str, **values: Any) -> None:
        if self.log is not None:
            self.log.write(kind, self.position.step, **values)


def _claim(out: Path, recipe: Recipe) -> bool:
    """Check that the folder is empty or contains a run of this recipe.

    Returns:
        Whether it contains a run with fewer epochs, which this call extends.

    Raises:
        ValueError: the folder contains other files or a run of another recipe.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {str(out)!r}")
    if (out / "recipe.yaml").is_file():
        existing = load_recipe(out / "recipe.yaml")
        changed = differences(existing, recipe, ignore=(*FREE_KEYS, "train.epochs"))
        before, now = existing.train.epochs, recipe.train.epochs
        if changed or now < before:
            changed += [f"train.epochs: {before}, {now}"] if now < before else []
            raise ValueError(
                f"out: expected a run of the same recipe, got another one in {str(out)!r}; choose another "
                f"folder or resume with the same recipe. Keys (existing, new): {'; '.join(changed)}"
            )
        if now > before and recipe.schedule.name != "step":
            raise ValueError(
                f"train.epochs: expected {before} as in {str(out)!r}, got {now}; a run with a cosine "
                "schedule cannot be extended, because its learning rates depend on the number of epochs"
            )
        return now > before
    # A killed process may leave the hidden file .recipe.yaml.partial.
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise ValueError(
            f"out: expected a new or empty folder or a run to resume, got {str(out)!r} with other files"
        )
    return False


def _due(epoch: int, every: int) -> bool:
    return bool(every) and (epoch + 1) % every == 0


def _scaled(values: dict[str, float], factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in values.items()}

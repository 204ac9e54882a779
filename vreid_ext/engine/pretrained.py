"""A trained system as a folder to pass on: weights, settings and a model card written from the run."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from vreid_ext import __version__, metrics
from vreid_ext._files import new_folder
from vreid_ext.engine.checkpoint import (
    describe_model,
    read_state,
    resolve_checkpoint,
    run_folder,
    save_checkpoint,
)
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.engine.figures import read_queries, read_result
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Recipe
from vreid_ext.engine.run_comparison import FIGURES, in_percent
from vreid_ext.engine.threshold import NAME as THRESHOLD
from vreid_ext.engine.threshold import find_threshold

CARD = "README.md"
_CONFIDENCE = "95 %"


def save_pretrained(
    checkpoint: str | Path,
    out: str | Path,
    *,
    license: str | None = None,
    figures: Iterable[str | Path] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Write the system of a checkpoint to a new folder that `Embedder.from_pretrained` and `vreid` open.

    The folder has `weights.safetensors`, `state.json` (recipe and number of classes, without the paths of
    this machine), the threshold of `vreid calibrate` if the run has one, and `README.md`, a model card in the
    form of the Hugging Face Hub: model, data, protocol, figures with intervals by a bootstrap over persons
    (`metrics.compare`), training settings and licence.

    Args:
        checkpoint: checkpoint or run folder.
        out: new or empty folder.
        license: licence of the weights as an identifier such as "apache-2.0"; None: "unknown".
        figures: results of `vreid eval` (JSON) or folders of runs for the card; None: the result of the run,
            if there is one.
        name: title of the card; default: the name of the recipe.

    Returns:
        folder, files, figures (the rows of the card) and license.

    Raises:
        FileExistsError: `out` is not empty.
        ValueError: `checkpoint` is a network file or there is none; or `figures` are no results.
    """
    source = resolve_checkpoint(Path(checkpoint))
    if source.is_file():
        raise ValueError(
            f"checkpoint: expected a checkpoint of `vreid train`, got the network {str(source)!r}"
        )
    model, _, _ = open_checkpoint(source)
    state = read_state(source)
    recipe = recipe_from_dict(without_paths(state["recipe"]))
    run = run_folder(source)
    if figures is None:
        figures = [run] if (run / "result.json").is_file() else []
    rows = [row for result in figures for row in _figures(Path(result))]
    threshold = find_threshold(source, run)
    card = _card(recipe, state["num_classes"], rows, license, name or recipe.name, threshold is not None)
    folder = Path(out)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as temporary:
        saved = temporary / "system"
        save_checkpoint(saved, model, recipe.to_dict(), state["num_classes"])
        for file in saved.iterdir():
            file.rename(temporary / file.name)
        saved.rmdir()
        if threshold is not None:
            shutil.copyfile(threshold.path, temporary / THRESHOLD)
        (temporary / CARD).write_text(card, encoding="utf-8")
    files = sorted(file.name for file in folder.iterdir())
    return {"folder": str(folder), "files": files, "figures": rows, "license": license or "unknown"}


def without_paths(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe (`Recipe.to_dict`) without the files and folders of this machine."""
    sets = recipe["dataset"]
    cleaned = [_without_files(each) for each in (sets if isinstance(sets, list) else [sets])]
    model = dict(recipe["model"])
    if Path(str(model.get("weights", ""))).is_absolute():
        model["weights"] = "none"  # the weights of the checkpoint replace those of the start
    return {**recipe, "dataset": cleaned if isinstance(sets, list) else cleaned[0], "model": model}


def _without_files(dataset: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in dataset["options"].items() if key != "attributes"}
    return {**dataset, "root": None, "labels": None, "joints": None, "options": options}


def _figures(result: Path) -> list[dict[str, Any]]:
    """The rows of an evaluation with intervals: value, low and high of each figure."""
    read = read_result(result)
    rows = []
    for row, queries in zip(read["rows"], read_queries(result), strict=True):
        figures = {key: torch.as_tensor(queries[key]) for key in ("ap", "first_hit")}
        compared = metrics.compare(figures, figures, torch.as_tensor(queries["pid"]))
        rows.append(
            {
                "dataset": row.get("dataset", read["dataset"]),
                "protocol": row.get("protocol", read["protocol"]),
                "metric": read["metric"],
                "frames": row["frames"],
                "sampling": row["sampling"],
                "queries": compared.queries,
                "persons": compared.persons,
                **{name: interval._asdict() for name, interval in compared.a.items()},
            }
        )
    return rows


def _card(
    recipe: Recipe, num_classes: int, rows: Sequence[Mapping[str, Any]], license: str | None, name: str,
    with_threshold: bool,
) -> str:  # fmt: skip
    sets = [each.name for each in recipe.datasets]
    head = {
        "license": license or "unknown",
        "library_name": "vreid-ext",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["person-re-identification", "video", recipe.model["name"]],
        "datasets": sets,
    }
    settings, batch = recipe.input, recipe.batch
    threshold = (
        " `threshold.json` says which distances mean the same person (`Embedder.compare`)."
        if with_threshold
        else ""
    )
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {name}",
        "",
        f"A system for video person re-identification of [vreid-ext](https://pypi.org/project/vreid-ext/) "
        f"{__version__}: {describe_model(recipe.model, num_classes)}.",
        "",
        "## Use",
        "",
        "```python",
        "from vreid_ext import Embedder",
        "",
        'embedder = Embedder.from_pretrained("hf:OWNER/NAME")  # or the path of this folder',
        "feature = embedder.embed(frames)  # frames of one person in temporal order, (h,w,3) uint8 RGB",
        "```",
        "",
        f"Frames are resized to {settings.height} x {settings.width} (height x width). Features are compared "
        f"with the {recipe.eval.metric} metric, unless the model has its own distance.{threshold}",
        "",
        "## Data",
        "",
        f"Trained on {' and '.join(sets)}: {num_classes} persons. The data set is not part of this folder; "
        "its terms apply to its pictures and may apply to weights that were trained on them.",
        "",
        "## Figures",
        "",
        *_table(rows),
        "",
        "## Training",
        "",
        f"Recipe `{recipe.name}`, epochs: {recipe.train.epochs}, batches of {batch.p} persons x {batch.k} "
        f"clips x {settings.frames} frames, {recipe.optim.name} with learning rate {recipe.optim.lr:g}, seed "
        f"{recipe.seed}. `state.json` has all settings.",
        "",
        "## Licence",
        "",
        f"{license}." if license else "The licence of these weights has not been stated.",
        "",
    ]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["None were measured."]
    protocols = dict.fromkeys(
        f"{row['dataset']}: {row['protocol']}, {row['metric']} distance." for row in rows
    )
    names = ("mAP", "rank1", "rank5", "rank10")
    heading = ["data set", "clips", *(FIGURES[figure] for figure in names), "queries of persons"]
    table = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for row in rows:
        clips = f"{row['sampling']}, {row['frames']} frames"
        cells = [row["dataset"], clips, *(in_percent(row[figure]) for figure in names)]
        cells.append(f"{row['queries']} of {row['persons']}")
        table.append(f"| {' | '.join(cells)} |")
    note = f"In percent, with {_CONFIDENCE} intervals by a bootstrap over persons, for these weights."
    return [*protocols, "", *table, "", note]

"""`vreid adapt`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vreid_ext.cli.app import Checkpoint, Json, Overrides, app
from vreid_ext.cli.output import RESUMES, bars, emit, emit_figures, prints


@app.command(
    epilog="Example: vreid adapt runs/first dataset.name=tracklet_folder dataset.root=people --out runs/new"
)
def adapt(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the adaptation.")] = Path("runs/adapted"),
    as_json: Json = False,
) -> None:
    """Adapt a trained model to a data set without using its labels.

    Clusters the training tracklets by their features, trains with the clusters as persons, and repeats this.
    Settings: adapt.rounds, epochs (of each round), method, eps, min_samples, min_cluster_size, k1, k2, noise.
    If query and gallery have known persons, prints the figures and the gain with 95 % intervals. The same
    command resumes after an interruption.

    Several processes: torchrun --nproc-per-node N -m vreid_ext adapt ...
    """
    from vreid_ext.engine.adapt import adapt as adapt_run
    from vreid_ext.engine.run_comparison import summary

    def report(facts: dict[str, Any]) -> None:
        if prints() and not as_json:
            typer.echo(_line(facts))

    with bars("clips", after=RESUMES) as (clips,):
        result = adapt_run(checkpoint, overrides or [], out, quiet=True, progress=clips, report=report)
    gains = [summary(each) for each in result.get("differences", [])]
    lines = [*gains, f"run: {out}"]
    if result["rows"]:
        emit_figures(result | {"run": str(out)}, as_json, *lines)
    else:
        emit(as_json, result | {"run": str(out)}, *lines)


def _line(facts: dict[str, Any]) -> str:
    text = "round {round}: {clusters} clusters, {noise} of {tracklets} tracklets in none".format(**facts)
    scores = facts.get("scores")
    if scores is None:
        return text
    titles = {"ari": "ARI", "precision": "pairwise precision", "recall": "recall", "f": "F"}
    shown = ", ".join(
        f"{title} {'-' if scores[name] is None else format(scores[name], '.3f')}"
        for name, title in titles.items()
    )
    return f"{text}; {scores['persons']} persons, {shown}"

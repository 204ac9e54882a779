"""The command `vreid`. Nothing but the standard library is imported before a command needs it."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from typer import Typer

# The extra that brings a module, by the module's first name.
_EXTRAS = {
    **dict.fromkeys(
        (
            "accelerate", "jinja2", "markupsafe", "matplotlib", "omegaconf", "PIL", "rich", "safetensors",
            "scipy", "tensorboard", "torchvision", "typer", "yaml",
        ),
        "train",
    ),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    "ai_edge_litert": "pose",
    "cv2": "video",
}  # fmt: skip


def main() -> None:
    """Run the command line.

    Exit code: 0 when done, 1 after a failure, 2 after wrong usage, 130 when interrupted.

    An error is one line on stderr; `vreid --debug COMMAND ...` shows the traceback instead.
    """
    arguments = [_at_home(argument) for argument in sys.argv[1:]]
    debug = arguments[:1] == ["--debug"]
    try:
        _app()(args=arguments[debug:], prog_name="vreid")
    except SystemExit as end:
        if not end.code:
            _leave_process_group()
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if debug:
            raise
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRAS:
            raise
        _fail(f"{module} is not installed: pip install 'vreid-ext[{_EXTRAS[module]}]'")
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        if debug:
            raise
        _fail(str(error) or type(error).__name__)


def _at_home(argument: str) -> str:
    """The argument with `~` expanded: shells leave it in `--out=~/runs`, other programs everywhere."""
    option = re.match(r"--[\w-]+=", argument)
    name = option[0] if option else ""
    return name + os.path.expanduser(argument.removeprefix(name))


def _leave_process_group() -> None:
    """A process that ends within a group is now and then aborted by gloo's threads, its work done."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _fail(message: str) -> None:
    print(f"vreid: error: {message}", file=sys.stderr)
    sys.exit(1)


def _app() -> "Typer":
    import typer
    from rich.console import Console
    from rich.table import Table

    from vreid_ext._process import launched

    app = typer.Typer(
        help="Video person re-identification. `vreid --debug COMMAND ...` shows tracebacks. "
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
        epilog="Example: vreid demo",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    is_main = launched("RANK", "0") == 0  # of the processes that torchrun started
    console = Console(quiet=not is_main)
    Layout = Literal["mars", "ilids", "prid"]
    Overrides = Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes of the recipe, as optim.lr=1e-3."),
    ]

    Json = Annotated[
        bool, typer.Option("--json", help="Print one line of JSON, and nothing else, on stdout.")
    ]
    Checkpoint = Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a run's folder for its newest one."),
    ]
    Root = Annotated[Path | None, typer.Option(help="Where the data set lies now.")]

    def tell(json_wanted: bool, value: Any, *lines: str) -> None:
        """The value for a machine, or the lines for a person; of several processes one tells."""
        if not is_main:
            return
        for line in [json.dumps(value)] if json_wanted else lines:
            typer.echo(line)

    def show(result: dict[str, Any], json_wanted: bool, *lines: str) -> None:
        if not json_wanted:
            console.print(figures_table(result))
        tell(json_wanted, result, f"protocol: {result['protocol']}", *lines)

    Splits = Annotated[
        str | None,
        typer.Option(help="`all`, or numbers such as 0,3: the splits of iLIDS-VID or PRID2011, averaged."),
    ]

    def show_splits(summary: dict[str, Any], json_wanted: bool) -> None:
        if not json_wanted:
            console.print(splits_table(summary))
        lines = [f"protocol: {protocol}" for protocol in summary["protocols"]]
        tell(json_wanted, summary, *lines, f"figures: {summary['file']}")

    def splits_table(summary: dict[str, Any]) -> Table:
        title = f"{summary['recipe']}, {len(summary['splits'])} splits, {summary['metric']} distance"
        table = Table(title=f"{title}: mean (deviation)")
        names = ("mAP", "rank1", "rank5", "rank10", "rank20")
        for heading in ("frames", "", *names):
            table.add_column(heading, justify="right")
        for row in summary["rows"]:
            figures = [row.get(name) for name in names]
            cells = [f"{100 * f['mean']:.1f} ({100 * f['deviation']:.1f})" if f else "" for f in figures]
            table.add_row(str(row["frames"]), row.get("dataset", ""), *cells)
            if "paper_percent" in row:
                published = [str(row["paper_percent"].get(name, "")) for name in names]
                table.add_row("", "paper", *published, style="dim")
        return table

    def figures_table(result: dict[str, Any]) -> Table:
        table = Table(title=f"{result['recipe']}, {result['ap']} AP, {result['metric']} distance")
        names = ("mAP", "mINP", "rank1", "rank5", "rank10", "rank20")
        for heading in ("frames", "", *names, "queries"):
            table.add_column(heading, justify="right")
        for row in result["rows"]:
            measured = [f"{100 * row[name]:.1f}" if name in row else "" for name in names]
            table.add_row(
                str(row["frames"]),
                row.get("dataset", ""),
                *measured,
                f"{row['valid_queries']}/{row['queries']}",
            )
            if "paper_percent" in row:
                published = [str(row["paper_percent"].get(name, "")) for name in names]
                table.add_row("", "paper", *published, "", style="dim")
        return table

    @contextmanager
    def interruptible(after: str) -> Iterator[None]:
        """Says on Ctrl-C what is left and how to go on."""
        try:
            yield
        except KeyboardInterrupt:
            typer.echo(f"vreid: interrupted; {after}", err=True)
            raise

    GOES_ON = "the same command goes on from where it stopped"

    @contextmanager
    def bars(
        *names: str, after: str = "nothing half-written is left; the same command starts again"
    ) -> Iterator[list[Callable[[int, int], None]]]:
        """For each name a callback of (done, total) that moves a bar on stderr; `interruptible`."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        errors = Console(stderr=True)
        with (
            interruptible(after),
            Progress(*columns, console=errors, disable=not (errors.is_terminal and is_main)) as progress,
        ):

            def bar(name: str) -> Callable[[int, int], None]:
                task = progress.add_task(name, total=None, visible=False)
                return lambda done, total: progress.update(task, completed=done, total=total, visible=True)

            yield [bar(name) for name in names]

    @app.command(epilog="Example: vreid train sta_mars dataset.root=MARS optim.lr=1e-4 --out runs/first")
    def train(
        recipe: Annotated[
            str,
            typer.Argument(metavar="RECIPE", help="A name (`vreid recipes`), or the path of a YAML file."),
        ],
        overrides: Overrides = None,
        out: Annotated[Path | None, typer.Option(help="The run's folder; runs/RECIPE unless given.")] = None,
        as_json: Json = False,
        splits: Splits = None,
    ) -> None:
        """Train a recipe and evaluate it; the same command goes on with a run that was interrupted.

        With --splits, a run for each split in OUT/split-NUMBER.

        Several GPUs: torchrun --nproc-per-node N -m vreid_ext train ...
        """
        from vreid_ext import engine

        loaded = engine.load_recipe(recipe, overrides or [])
        folder = out or Path("runs") / loaded.name
        if splits is not None:
            from vreid_ext.engine.splits import parse_splits, train_splits

            with interruptible(GOES_ON):
                summary = train_splits(loaded, folder, parse_splits(splits))
            if summary:
                show_splits(summary, as_json)
            return
        with interruptible(GOES_ON):
            result = engine.train(loaded, folder)
        if result:
            show(result | {"run": str(folder)}, as_json, f"run: {folder}")

    @app.command(
        name="eval", epilog="Example: vreid eval runs/first eval.sampling=dense --dataset-root /data/MARS"
    )
    def evaluate(
        checkpoint: Checkpoint,
        overrides: Overrides = None,
        dataset_root: Root = None,
        out: Annotated[
            Path | None, typer.Option(help="The JSON file of the figures; in the run unless given.")
        ] = None,
        report: Annotated[
            bool, typer.Option(help="Write the page of `vreid report` beside the figures.")
        ] = True,
        as_json: Json = False,
        splits: Splits = None,
        rerank: Annotated[
            bool, typer.Option("--rerank", help="Rank by k-reciprocal re-ranked distances: eval.rerank=true.")
        ] = False,
        features: Annotated[
            Path | None,
            typer.Option(
                help="A folder that features are written to, or read from where they are there already: the "
                "same command goes on after an interruption."
            ),
        ] = None,
        lengths: Annotated[
            str | None,
            typer.Option(
                help="Clip lengths, such as 1,8,all: figures for every pair of query and gallery lengths, as "
                "a table and a heat map."
            ),
        ] = None,
    ) -> None:
        """Evaluate a checkpoint: CMC, mAP, mINP under the protocol of its data set, and a page to look at.

        Another data set than the one trained on: dataset.name=NAME dataset.root=DIR. With --splits,
        CHECKPOINT is a folder trained with --splits, or a model of another data set; no page.

        Several processes: torchrun --nproc-per-node N -m vreid_ext eval ...
        """
        from vreid_ext import engine

        engine.join_processes()
        changes = [*_with_root(overrides, dataset_root), *(["eval.rerank=true"] if rerank else [])]
        if features is not None and (splits is not None or lengths is not None):
            raise ValueError("--features: got it with --splits or --lengths, wanted it without")
        if splits is not None:
            from vreid_ext.engine.splits import evaluate_splits, parse_splits

            show_splits(evaluate_splits(checkpoint, changes, parse_splits(splits), out=out), as_json)
            return
        if lengths is not None:
            with bars("clips") as (clips,):
                grid = engine.evaluate_checkpoint_lengths(
                    checkpoint, changes, _lengths(lengths), out=out, progress=clips
                )
            table = Table("query \\ gallery", *map(str, grid["lengths"]), title=f"{grid['recipe']}, rank-1")
            for length, row in zip(grid["lengths"], grid["rank1"], strict=True):
                table.add_row(str(length), *(f"{100 * value:.1f}" for value in row))
            if not as_json:
                console.print(table)
            tell(as_json, grid, f"figures: {grid['file']}, {grid['picture']}")
            return
        if report and is_main:
            from vreid_ext.report.page import report_checkpoint

            with bars("clips", "pictures") as (clips, pictures):
                result = report_checkpoint(
                    checkpoint, changes, figures=out, features=features,
                    progress=clips, progress_pictures=pictures,
                )  # fmt: skip
        else:
            with bars("clips") as (clips,):
                result = engine.evaluate_checkpoint(
                    checkpoint, changes, out=out, features=features, progress=clips
                )
        page = [f"report: {result['page']}"] if "page" in result else []
        show(result, as_json, f"figures: {result['file']}", *page)

    @app.command(
        name="report", epilog="Example: vreid report runs/synth_sta --beside runs/synth_avg --out pages"
    )
    def report_command(
        checkpoint: Annotated[
            Path,
            typer.Argument(metavar="RUN", help="A run's folder for its newest checkpoint, or a checkpoint."),
        ],
        overrides: Overrides = None,
        dataset_root: Root = None,
        out: Annotated[
            Path | None,
            typer.Option(help="The page, NAME.html, or a folder for report.html; the run unless given."),
        ] = None,
        ranks: Annotated[int, typer.Option(help="Places of each query's list.")] = 20,
        beside: Annotated[
            list[Path] | None, typer.Option(help="A further run whose figures and curves are shown beside.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Evaluate a run and write a page to look at: figures, curves, every query's list, attention.

        Beside the page NAME.html lie its pictures, NAME_files, and the figures, NAME.json.
        """
        from vreid_ext.engine.checkpoint import resolve_checkpoint
        from vreid_ext.report.page import report_checkpoint

        page = out or resolve_checkpoint(checkpoint).parent.parent
        if page.suffix.lower() != ".html":
            page /= "report.html"
        others = {str(run): run for run in beside or []}
        with bars("clips", "pictures") as (clips, pictures):
            result = report_checkpoint(
                checkpoint, _with_root(overrides, dataset_root), figures=page.with_suffix(".json"),
                ranks=ranks, beside=others, progress=clips, progress_pictures=pictures,
            )  # fmt: skip
        show(result, as_json, f"report: {result['page']}")

    plot = typer.Typer(
        help="Draw one picture of a run, PNG or SVG as the name ends.",
        epilog="Example: vreid plot cmc runs/synth_sta --out cmc.svg",
        no_args_is_help=True,
    )
    app.add_typer(plot, name="plot")
    Picture = Annotated[Path, typer.Option(help="The picture, NAME.png or NAME.svg.")]
    Query = Annotated[str, typer.Option(help="A query tracklet: its name, or its number from 0.")]

    @plot.command(name="cmc", epilog="Example: vreid plot cmc runs/synth_sta runs/synth_avg --out cmc.svg")
    def plot_cmc(
        results: Annotated[
            list[Path], typer.Argument(metavar="RESULT", help="A finished run, or the JSON of `vreid eval`.")
        ],
        out: Picture,
        ranks: Annotated[int, typer.Option(help="Length of the curves, at most 50.")] = 20,
        as_json: Json = False,
    ) -> None:
        """Draw the CMC curves of one or several runs."""
        from vreid_ext.report.figures import draw_cmc

        draw_cmc(results, out, ranks=ranks)
        tell(as_json, {"picture": str(out)}, f"picture: {out}")

    @plot.command(name="heatmap", epilog="Example: vreid plot heatmap runs/synth_sta --query 3 --out a.png")
    def plot_heatmap(
        checkpoint: Checkpoint,
        out: Picture,
        query: Query,
        overrides: Overrides = None,
        dataset_root: Root = None,
        as_json: Json = False,
    ) -> None:
        """Draw what the model attends to on a query's frames."""
        from vreid_ext.report.figures import draw_heatmap

        draw_heatmap(checkpoint, query, out, _with_root(overrides, dataset_root))
        tell(as_json, {"picture": str(out)}, f"picture: {out}")

    @plot.command(name="ranking", epilog="Example: vreid plot ranking runs/synth_sta --query 3 --out r.png")
    def plot_ranking(
        checkpoint: Checkpoint,
        out: Picture,
        query: Query,
        overrides: Overrides = None,
        dataset_root: Root = None,
        ranks: Annotated[int, typer.Option(help="Places drawn; junk between them is drawn, too.")] = 10,
        as_json: Json = False,
    ) -> None:
        """Draw the nearest gallery tracklets of a query: hit, miss and junk."""
        from vreid_ext.report.figures import draw_ranking

        with bars("clips") as (clips,):
            draw_ranking(
                checkpoint, query, out, _with_root(overrides, dataset_root), ranks=ranks, progress=clips
            )
        tell(as_json, {"picture": str(out)}, f"picture: {out}")

    @app.command(epilog="Example: vreid export runs/first --format onnx --out sta.onnx")
    def export(
        checkpoint: Checkpoint,
        overrides: Overrides = None,
        format: Annotated[
            Literal["onnx", "torch"], typer.Option(help="ONNX, or what torch.export.load reads.")
        ] = "onnx",
        out: Annotated[
            Path | None, typer.Option(help="The file; model.onnx or model.pt2 in the run unless given.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Write the model as one file that runs without this package, and check it against the checkpoint."""
        from vreid_ext.engine.export import export_model

        told = export_model(checkpoint, out, format=format, overrides=overrides or [])
        checked = f"differs by {told['largest_difference']:.1e} of the largest feature"
        tell(as_json, told, f"{told['clips']} to {told['dimensions']} numbers; {checked}: {told['file']}")

    @app.command(epilog="Example: vreid extract runs/first --out features")
    def extract(
        checkpoint: Checkpoint,
        out: Annotated[Path, typer.Option(help="The folder for features and manifest.")],
        overrides: Overrides = None,
        dataset_root: Root = None,
        as_json: Json = False,
    ) -> None:
        """Write the features of every query and gallery tracklet (safetensors) and a manifest (JSON).

        The same command goes on after an interruption. `vreid eval --features OUT` evaluates them.

        Several processes: torchrun --nproc-per-node N -m vreid_ext extract ...
        """
        from vreid_ext import engine
        from vreid_ext.engine.features import export_features

        engine.join_processes()
        with bars("clips", after=GOES_ON) as (clips,):
            written = export_features(checkpoint, out, _with_root(overrides, dataset_root), progress=clips)
        told, lines = [], []
        for features in written:
            dimensions = features.manifest["widths"]["features"]
            counts = {split: len(rows) for split, rows in features.manifest["splits"].items()}
            named = ", ".join(f"{count} {split}" for split, count in counts.items())
            told.append({"out": str(features.folder), "dimensions": dimensions, **counts})
            lines.append(f"{named} tracklets x {dimensions} numbers: {features.folder}")
        tell(as_json, told[0] if len(told) == 1 else told, *lines)

    @app.command(epilog="Example: vreid search features features --top 5 --out nearest.json")
    def search(
        query: Annotated[
            Path, typer.Argument(metavar="QUERY", help="A folder of `vreid extract`: its query split.")
        ],
        gallery: Annotated[
            Path, typer.Argument(metavar="GALLERY", help="A folder of `vreid extract`: its gallery split.")
        ],
        top: Annotated[int, typer.Option(help="Tracklets shown for each query.")] = 10,
        out: Annotated[Path | None, typer.Option(help="Write the lists to this JSON file, too.")] = None,
        as_json: Json = False,
    ) -> None:
        """List the nearest gallery tracklets of every query tracklet, with their distances."""
        from vreid_ext.engine.evaluate import write_json
        from vreid_ext.engine.search import read_split
        from vreid_ext.engine.search import search as nearest

        lists = nearest(read_split(query, "query"), read_split(gallery, "gallery"), top)
        lines = []
        for entry in lists:
            lines.append(entry["query"])
            for place, item in enumerate(entry["nearest"], start=1):
                lines.append(f"  {place:3d}  {item['distance']:.4f}  {item['name']}")
        tell(as_json, lists, *lines)
        if out is not None:
            write_json(out, lists)

    @app.command(epilog="Example: vreid synth people --ids 20 --frames 8 --size 64x32")
    def synth(
        out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
        layout: Annotated[Layout, typer.Option(help="Whose folders and split files.")] = "mars",
        ids: Annotated[int, typer.Option(help="Persons.")] = 40,
        cameras: Annotated[int | None, typer.Option(help="Cameras; 4 for mars, else 2.")] = None,
        tracklets: Annotated[
            int | None, typer.Option(help="Tracklets of a person in a camera; 2 for mars, else 1.")
        ] = None,
        frames: Annotated[
            int | None, typer.Option(help="Frames of a tracklet; 16 for mars, else 32.")
        ] = None,
        size: Annotated[str, typer.Option(help="Height x width in pixels.")] = "128x64",
        seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
        as_json: Json = False,
    ) -> None:
        """Render walking people in the layout of MARS (with attributes and joints), iLIDS-VID or PRID2011."""
        from vreid_ext.data.synth import synthesize

        height, width = _size(size)
        with bars("images") as (images,):
            synthesize(
                out, layout=layout, ids=ids, cameras=cameras, tracklets=tracklets, frames=frames,
                size=(height, width), seed=seed, progress=images,
            )  # fmt: skip
        tell(as_json, {"out": str(out)}, f"written: {out}")

    @app.command(epilog="Example: vreid tracklets street.avi named --boxes boxes.json --split 350")
    def tracklets(
        video: Annotated[
            Path,
            typer.Argument(
                metavar="VIDEO", help="A video file, or a folder of them, each a camera of its own."
            ),
        ],
        out: Annotated[
            Path,
            typer.Argument(metavar="OUT", help="A new folder, to be read as dataset.name=tracklet_folder."),
        ],
        boxes: Annotated[
            Path | None,
            typer.Option(
                help="Labelled boxes instead of detecting people: a JSON file; for a folder, a folder."
            ),
        ] = None,
        split: Annotated[
            int | None,
            typer.Option(
                help="Tracklets that end before this frame are for training, the others for testing."
            ),
        ] = None,
        start: Annotated[int, typer.Option(help="First frame used, from 0.")] = 0,
        stop: Annotated[
            int | None, typer.Option(help="Frame before which to stop; the video's end unless given.")
        ] = None,
        stride: Annotated[int, typer.Option(help="People are looked for on every so many frames.")] = 2,
        min_frames: Annotated[int, typer.Option(help="Tracks with fewer boxes are left out.")] = 4,
        camera: Annotated[
            str, typer.Option(help="Name of the camera folder; one for each camera to be put together.")
        ] = "cam1",
        as_json: Json = False,
    ) -> None:
        """Find people in a video, link them over time and crop them into tracklets."""
        from vreid_ext.data.video import extract_tracklets, extract_videos

        of_one: dict[str, Any] = {"split": split, "camera": camera}
        options: dict[str, Any] = {"start": start, "stop": stop, "stride": stride, "min_frames": min_frames}
        options["boxes"] = boxes
        with bars("frames") as (read,):  # counted once to find people, once to crop them
            if video.is_dir():
                for name, value in of_one.items():
                    if value not in (None, "cam1"):
                        raise ValueError(f"--{name}: got {value}, wanted none for a folder of videos")
                extraction = extract_videos(video, out, **options, progress=read)
            else:
                extraction = extract_tracklets(video, out, **of_one, **options, progress=read)
        counts = {"tracklets": len(extraction.tracks), "train": extraction.train}
        counts |= {"crops": extraction.crops, "too_short": extraction.too_short}
        told = {"out": str(extraction.root), **counts, "notes": extraction.notes}
        tell(as_json, told, extraction.summary())

    @app.command(epilog="Example: vreid data tracklet_folder people split=0.5")
    def data(
        dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A registered name, such as mars.")],
        root: Annotated[Path, typer.Argument(metavar="ROOT", help="Its folder.")],
        options: Annotated[
            list[str] | None,
            typer.Argument(metavar="KEY=VALUE", help="Options of the data set, as gallery=without_query."),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Print what is in a data set: persons, tracklets, frames, cameras, protocol, what is not used.

        Unusable tracklets are listed, not an error, unless on_error=raise is given.
        """
        from vreid_ext.engine.build import dataset_of
        from vreid_ext.engine.config import recipe_from_dict

        asked = [f"dataset.options.{option}" for option in ("on_error=skip", *(options or []))]
        found = dataset_of(recipe_from_dict({"dataset": {"name": dataset, "root": str(root)}}, asked).dataset)
        told = {"dataset": found.name, "root": found.root, **found.counts(), "protocol": found.protocol}
        told |= {"skipped": found.skipped, "ignored": found.ignored}
        tell(as_json, told, str(found))

    @app.command(epilog="Example: vreid joints mars /data/MARS --model mediapipe-0.10.21-*.whl --pictures 4")
    def joints(
        dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A registered name, such as mars.")],
        root: Annotated[Path, typer.Argument(metavar="ROOT", help="Its folder.")],
        model: Annotated[
            Path | None,
            typer.Option(
                help="pose_landmark_full.tflite, or the wheel of mediapipe 0.10.21 that holds it; "
                "unless given, that of an installed mediapipe."
            ),
        ] = None,
        out: Annotated[
            Path | None, typer.Option(help="A .jsonl file; ROOT/joints.jsonl unless given.")
        ] = None,
        threads: Annotated[int, typer.Option(help="Of the pose network.")] = 1,
        pictures: Annotated[
            int, typer.Option(help="Draw skeletons and parts of so many tracklets, beside the file.")
        ] = 0,
        as_json: Json = False,
    ) -> None:
        """Find 14 joints in every frame of every tracklet; the same command goes on where it was stopped."""
        from vreid_ext.data import build_dataset
        from vreid_ext.data.pose import MediaPipePose, estimate_joints

        data = build_dataset(dataset, root)
        estimator = MediaPipePose(model, threads=threads)
        with bars("tracklets", after=GOES_ON) as (tracklets,):
            file = str(estimate_joints(data, estimator, out, progress=tracklets))
        drawn: list[str] = []
        if pictures:
            from vreid_ext.report.parts import picture_tracklets

            drawn = [str(picture) for picture in picture_tracklets(data, Path(file), pictures)]
        told = {"joints": file, "pictures": drawn}
        tell(as_json, told, f"joints: {file}", *(f"picture: {picture}" for picture in drawn))

    @app.command(epilog="Example: vreid demo vreid-demo --seed 1")
    def demo(
        out: Annotated[
            Path, typer.Argument(metavar="OUT", help="Folder of the set, the runs and the pictures.")
        ] = Path("vreid-demo"),
        seed: Annotated[int, typer.Option(help="Of the rendered set and of training.")] = 0,
        as_json: Json = False,
    ) -> None:
        """Render a set, train average pooling and STA on it, draw curves and attention: minutes on a CPU."""
        from vreid_ext.engine.demo import run_demo

        with interruptible(GOES_ON):
            rows = run_demo(out, seed=seed, quiet=as_json)
        tell(as_json, {"out": str(out), "report": str(out / "report.html"), "rows": rows})

    @app.command(epilog="Example: vreid recipes")
    def recipes(as_json: Json = False) -> None:
        """List the recipes that come with the package."""
        from vreid_ext.engine import load_recipe, recipe_names

        sources = {name: load_recipe(name).paper.source for name in recipe_names()}
        if as_json:
            tell(True, sources)
            return
        table = Table("recipe", "published in", box=None)
        for name, source in sources.items():
            table.add_row(name, source)
        console.print(table)

    @app.command(epilog="Example: vreid tune")
    def tune(
        out: Annotated[
            Path | None,
            typer.Option(
                help="Where to write; unless given, where the kernels look: VREID_TRITON_TABLES, or "
                "vreid_ext/triton.json in the user's configuration folder."
            ),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Measure tiles of the Triton kernels on this GPU; write the fastest beside those of other GPUs."""
        import torch

        from vreid_ext import backends

        reason = backends.load("triton").unavailable("sta_pool", torch.device("cuda"), torch.float32)
        if reason is not None:
            raise RuntimeError(f"there is nothing to tune: {reason}")
        from vreid_ext.backends.triton import configs, tune
        from vreid_ext.engine.evaluate import write_json

        path = out or configs.tables_file()
        tables = configs.read_tables(path) if path.exists() else {}
        gpu = torch.cuda.get_device_name()
        tables[gpu] = tune.tune(tune.measure, lambda line: typer.echo(line, err=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, tune.as_json(tables))
        tell(as_json, {"gpu": gpu, "tables": str(path)}, f"tables of {gpu}: {path}")

    @app.command(epilog="Example: vreid info")
    def info(as_json: Json = False) -> None:
        """Say what is built, what it runs on, and for each op which backends are usable and why not."""
        from vreid_ext import backends
        from vreid_ext.engine.environment import environment

        facts = environment()
        if as_json:
            ops = [{"op": op, "backend": name, "unusable": reason} for op, name, reason in backends.table()]
            tell(True, {"environment": facts, "ops": ops})
            return
        facts_table = Table(box=None, show_header=False)
        for name, value in facts.items():
            facts_table.add_row(name, value)
        console.print(facts_table)
        usable = Table("op", "backend", "usable", title="ops and backends")
        for op, backend, reason in backends.table():
            usable.add_row(op, backend, "yes" if reason is None else f"no: {reason}")
        console.print(usable)

    return app


def _with_root(overrides: list[str] | None, root: Path | None) -> list[str]:
    return [*(overrides or []), *([f"dataset.root={root}"] if root is not None else [])]


def _lengths(text: str) -> list[Any]:
    parts = text.split(",")
    if not all(part == "all" or part.isdecimal() for part in parts):
        raise ValueError(f"--lengths: got {text!r}, wanted numbers of frames or 'all', such as 1,8,all")
    return [part if part == "all" else int(part) for part in parts]


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise ValueError(f"--size: got {text!r}, wanted HEIGHTxWIDTH in pixels, such as 128x64")
    return int(height), int(width)

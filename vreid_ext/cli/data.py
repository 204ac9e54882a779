"""`vreid synth`, `vreid tracklets`, `vreid data` and `vreid joints`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vreid_ext.cli.app import Json, app
from vreid_ext.cli.output import RESUMES, bars, emit


@app.command(epilog="Example: vreid synth people --ids 20 --frames 8 --size 64x32")
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    layout: Annotated[
        Literal["mars", "ilids", "prid"], typer.Option(help="Layout of the folders and split files.")
    ] = "mars",
    ids: Annotated[int, typer.Option(help="Number of persons.")] = 40,
    cameras: Annotated[
        int | None, typer.Option(help="Number of cameras; default 4 for mars, otherwise 2.")
    ] = None,
    tracklets: Annotated[
        int | None,
        typer.Option(help="Tracklets per person and camera; default 2 for mars, otherwise 1."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames per tracklet; default 16 for mars, otherwise 32.")
    ] = None,
    size: Annotated[str, typer.Option(help="Height x width in pixels.")] = "128x64",
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives identical files.")] = 0,
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
    emit(as_json, {"out": str(out)}, f"written: {out}")


@app.command(epilog="Example: vreid tracklets street.avi named --boxes boxes.json --split 350")
def tracklets(
    video: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEO",
            help="A video file, the folder of a video's images, or a folder of videos, one per camera.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="A new folder; read it with dataset.name=tracklet_folder."),
    ],
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Labeled boxes, used instead of detections: a JSON file, MOT text (.txt), or a folder of "
            "them for a folder of videos."
        ),
    ] = None,
    split: Annotated[
        int | None,
        typer.Option(
            help="Tracklets that end before this frame are used for training, the others for testing."
        ),
    ] = None,
    start: Annotated[int, typer.Option(help="First frame to use, counted from 0.")] = 0,
    stop: Annotated[
        int | None, typer.Option(help="Frame to stop before; default: the end of the video.")
    ] = None,
    stride: Annotated[int, typer.Option(help="Detect people on every n-th frame.")] = 2,
    min_frames: Annotated[int, typer.Option(help="Drop tracks with fewer boxes.")] = 4,
    camera: Annotated[
        str, typer.Option(help="Name of the camera's folder; use a different name for each camera.")
    ] = "cam1",
    as_json: Json = False,
) -> None:
    """Detect people in a video, track them and crop them into tracklets.

    The boxes are written as JSON, in which persons can be named, and as MOT text (frame,id,x,y,w,h,...).
    """
    from vreid_ext.data.video.extract import extract_tracklets, extract_videos, is_image_folder

    for_one_video: dict[str, Any] = {"split": split, "camera": camera}
    options: dict[str, Any] = {"start": start, "stop": stop, "stride": stride, "min_frames": min_frames}
    options["boxes"] = boxes
    with bars("frames") as (read,):  # two passes over the video: detection, cropping
        if video.is_dir() and not is_image_folder(video):
            for name, value in for_one_video.items():
                if value not in (None, "cam1"):
                    raise ValueError(f"--{name}: expected no value for a folder of videos, got {value}")
            extraction = extract_videos(video, out, **options, progress=read)
        else:
            extraction = extract_tracklets(video, out, **for_one_video, **options, progress=read)
    counts = {"tracklets": len(extraction.tracks), "train": extraction.train}
    counts |= {"crops": extraction.crops, "too_short": extraction.too_short}
    result = {"out": str(extraction.root), **counts, "notes": extraction.notes}
    emit(as_json, result, extraction.summary())


@app.command(epilog="Example: vreid data tracklet_folder people split=0.5")
def data(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A registered name, such as mars.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Its folder.")],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Options of the data set, such as gallery=without_query."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the contents of a data set: persons, tracklets, frames, cameras, protocol, unused files.

    Unusable tracklets are listed; with on_error=raise they are an error.
    """
    from vreid_ext.engine.build import dataset_of
    from vreid_ext.engine.config import recipe_from_dict

    overrides = [f"dataset.options.{option}" for option in ("on_error=skip", *(options or []))]
    found = dataset_of(recipe_from_dict({"dataset": {"name": dataset, "root": str(root)}}, overrides).dataset)
    result = {"dataset": found.name, "root": found.root, **found.counts(), "protocol": found.protocol}
    result |= {"skipped": found.skipped, "ignored": found.ignored}
    emit(as_json, result, str(found))


@app.command(epilog="Example: vreid joints mars /data/MARS --model mediapipe-0.10.21-*.whl --pictures 4")
def joints(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A registered name, such as mars.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Its folder.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="pose_landmark_full.tflite, or the wheel of mediapipe 0.10.21 that contains it; "
            "default: the file of the installed mediapipe."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .jsonl file; default ROOT/joints.jsonl.")] = None,
    threads: Annotated[int, typer.Option(help="Number of threads of the pose network.")] = 1,
    pictures: Annotated[
        int,
        typer.Option(
            help="Draw the joints and parts of this many tracklets; the pictures are saved next to OUT."
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Estimate 14 joints in every frame of every tracklet.

    To resume after an interruption, run the same command again.
    """
    from vreid_ext.data import build_dataset
    from vreid_ext.data.pose.estimate import MediaPipePose, estimate_joints

    data = build_dataset(dataset, root)
    estimator = MediaPipePose(model, threads=threads)
    with bars("tracklets", after=RESUMES) as (tracklets,):
        file = str(estimate_joints(data, estimator, out, progress=tracklets))
    drawn: list[str] = []
    if pictures:
        from vreid_ext.report.parts import picture_tracklets

        drawn = [str(picture) for picture in picture_tracklets(data, Path(file), pictures)]
    result = {"joints": file, "pictures": drawn}
    emit(as_json, result, f"joints: {file}", *(f"picture: {picture}" for picture in drawn))


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise ValueError(f"--size: expected HEIGHTxWIDTH in pixels, such as 128x64, got {text!r}")
    return int(height), int(width)

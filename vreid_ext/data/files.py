"""Looking at folders of images before training starts: listing them, sorting out unusable tracklets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from .images import read_image
from .records import DatasetError, Tracklet

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

Check = Literal["exists", "decode", "none"]
OnError = Literal["raise", "skip"]


def list_folder(folder: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Names of the sub-folders and of the images (suffix in any case) of a folder, each sorted.

    Hidden and other files are left out. Raises DatasetError if the folder cannot be listed.
    """
    folders, images = [], []
    for entry in _scan(folder):
        if entry.name.startswith("."):
            continue
        if entry.name.lower().endswith(IMAGE_SUFFIXES):
            images.append(entry.name)
        elif _is_folder(entry):
            folders.append(entry.name)
    return sorted(folders), sorted(images)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link that leads to itself
        raise DatasetError(f"{entry.path}: cannot be looked at ({error.strerror})") from error


def find_root(root: str | os.PathLike[str], layout: str, needed: Iterable[str] = ()) -> Path:
    """The folder `root` as a path, after making sure that it and the `needed` entries in it exist.

    Raises DatasetError that says what is missing and what `layout` looks like.
    """
    path = Path(root)
    if not path.is_dir():
        raise DatasetError(f"root: {path} is not a folder; want the one that holds {layout}")
    for name in needed:
        if not (path / name).exists():
            raise DatasetError(f"root: {path / name} is missing; want in {path}: {layout}")
    return path


class Screen:
    """Sorts out tracklets that cannot be used.

    check: "exists" lists every image folder once, "decode" also opens every image, "none" trusts the data.
    on_error: "raise" ends in one DatasetError that names the first offenders, "skip" notes them in `skipped`.
    """

    def __init__(self, check: Check, on_error: OnError) -> None:
        if check not in get_args(Check):
            raise ValueError(f"check: got {check!r}, want one of {', '.join(get_args(Check))}")
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error: got {on_error!r}, want one of {', '.join(get_args(OnError))}")
        self._check, self._on_error = check, on_error
        self._folder = ""
        self._files: dict[str, str] = {}
        self.skipped: list[str] = []

    def reject(self, name: str, reason: str) -> None:
        """Notes that tracklet `name` cannot be used."""
        self.skipped.append(f"{name}: {reason}")

    def usable(self, tracklet: Tracklet) -> Tracklet | None:
        """The tracklet, with paths corrected that differ in case only (`.JPG`); None if it was rejected."""
        try:
            return self._checked(tracklet)
        except DatasetError as error:
            self.reject(tracklet.name, str(error))
            return None

    def keep(self, tracklets: Iterable[Tracklet]) -> list[Tracklet]:
        """The usable ones, in order."""
        return [kept for tracklet in tracklets if (kept := self.usable(tracklet)) is not None]

    def finish(self) -> list[str]:
        """Reasons of all rejected tracklets; raises DatasetError with them if on_error is "raise"."""
        if self.skipped and self._on_error == "raise":
            shown = "\n  ".join(self.skipped[:5])
            more = f"\n  and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
            raise DatasetError(
                f"{len(self.skipped)} tracklets cannot be used:\n  {shown}{more}\n"
                "Restore the files, or leave these tracklets out with on_error='skip'."
            )
        return self.skipped

    def _checked(self, tracklet: Tracklet) -> Tracklet:
        if self._check == "none":
            return tracklet
        paths = tuple(self._existing(path) for path in tracklet.paths)
        if self._check == "decode":
            for path in paths:
                read_image(path)
        return tracklet if paths == tracklet.paths else dataclasses.replace(tracklet, paths=paths)

    def _existing(self, path: str) -> str:
        folder, name = os.path.split(path)
        if self._folder != folder:
            # One folder is remembered: loaders give the tracklets of a folder one after another.
            files = [entry.name for entry in _scan(folder)]
            self._files = {file.lower(): file for file in files} | {file: file for file in files}
            self._folder = folder
        found = self._files.get(name) or self._files.get(name.lower())
        if found is None:
            raise DatasetError(f"{path}: no such image")
        return path if found == name else os.path.join(folder, found)


def _scan(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DatasetError(f"{os.fspath(folder)}: cannot list this folder ({error.strerror})") from error

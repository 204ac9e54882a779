"""Cameras and their tracklets: background, viewpoint, color, blur, occluders and other people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vreid_ext.data.synth.looks import BAGS, Look, weave
from vreid_ext.data.synth.person import View, Walk, draw_person

SUPERSAMPLE = 3
_PANORAMA = 6  # width of a camera's background, in crop widths


@dataclass(frozen=True)
class Camera:
    """A fixed camera. `background` is a supersampled panorama; `gain` and `gamma` are its color response."""

    heading: float  # yaw of most people in this camera, in radians
    pitch: float
    gain: np.ndarray
    gamma: float
    blur: float  # standard deviation in pixels
    noise: np.ndarray  # (2h, 2w, 3) int16; every frame uses a random crop of it
    zoom: float
    quality: int
    background: Image.Image


def place_camera(rng: np.random.Generator, index: int, cameras: int, size: tuple[int, int]) -> Camera:
    """Camera `index` of `cameras`. Headings are spread over the circle; all other properties are random."""
    height, width = size
    noise = rng.normal(0.0, rng.uniform(2.0, 6.0), (2 * height, 2 * width, 3)).round().astype(np.int16)
    return Camera(
        heading=2 * np.pi * index / cameras + rng.uniform(-0.3, 0.3),
        pitch=rng.uniform(0.05, 0.35),
        gain=rng.uniform(0.84, 1.12, 3),
        gamma=rng.uniform(0.8, 1.25),
        blur=height / 128 * rng.uniform(0.0, 0.9),
        noise=noise,
        zoom=rng.uniform(0.86, 0.98),
        quality=int(rng.integers(72, 93)),
        background=_background(rng, (height * SUPERSAMPLE, width * SUPERSAMPLE)),
    )


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A slightly blurred street: wall with doors, windows and posters, and paved floor."""
    height, width = size[0], size[1] * _PANORAMA
    wall, floor = (rng.uniform(100, 160) + rng.normal(0, 8, 3) for _ in range(2))
    image = Image.new("RGB", (width, height), tuple(int(v) for v in wall))
    pen = ImageDraw.Draw(image)
    horizon = int(height * rng.uniform(0.35, 0.7))
    for _ in range(int(rng.integers(18, 30))):
        x, w, h = rng.uniform(0, width), rng.uniform(0.1, 0.8) * size[1], rng.uniform(0.08, 0.5) * height
        y = rng.uniform(-0.1 * height, horizon - 0.3 * h)
        color = tuple(int(v) for v in np.clip(wall + rng.normal(0, 40) + rng.normal(0, 16, 3), 0, 255))
        pen.rectangle((x, y, x + w, min(y + h, horizon)), fill=color)
    pen.rectangle((0, horizon, width, height), fill=tuple(int(v) for v in floor))
    step = rng.uniform(0.15, 0.5) * size[1]
    joint = tuple(int(v * 0.85) for v in floor)
    for k in range(int(width / step) + 2):
        pen.line((k * step, horizon, k * step - 0.4 * size[1], height), fill=joint)
    for k in range(1, 5):
        y = horizon + (height - horizon) * (k / 5) ** 1.6
        pen.line((0, y, width, y), fill=joint)
    image = image.filter(ImageFilter.GaussianBlur(height / 128 * rng.uniform(0.6, 1.6)))
    grain = np.asarray(image, np.int16) + rng.normal(0, 3, (height, width, 1))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


class Person:
    """A look and its cloth texture, which is computed once and cached."""

    def __init__(self, look: Look) -> None:
        self.look = look

    @cached_property
    def cloth(self) -> np.ndarray:
        return weave(self.look)


@dataclass(frozen=True)
class Frame:
    """One crop. `joints` (14, 3): x, y in pixels, rounded to 0.1, and 1 if in the crop and not occluded."""

    image: Image.Image
    joints: np.ndarray


@dataclass(frozen=True)
class _Passer:
    """A person or object that crosses the crop. Its center is `0.5 + speed * (frame - at)` crop widths."""

    kind: str  # "person" | "pole" | "bin" | "bush"
    at: float  # frame in which it is in the middle of the crop
    speed: float  # in crop widths per frame
    color: tuple[int, int, int]
    width: float  # in crop widths
    top: float  # in crop heights
    person: Person | None = None
    walk: Walk | None = None


class Shot:
    """One tracklet before rendering: the person, the camera, the walk and the occluders.

    Args:
        rng: source of all random properties.
        camera: the camera.
        person: the target; None renders only the background (a false detection).
        others: people who may walk past.
        frames: number of frames.
        size: (height, width) of a crop in pixels.
        spoiled: misalign the box, as in the junk of a real set.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        camera: Camera,
        person: Person | None,
        others: list[Person],
        frames: int,
        size: tuple[int, int],
        *,
        spoiled: bool = False,
    ) -> None:
        self.rng, self.camera, self.person, self.frames, self.size = rng, camera, person, frames, size
        turned = np.pi if rng.random() < 0.3 else 0.0
        self.walk = _draw_walk(rng, camera.heading + turned + rng.normal(0, 0.3))
        self.cut_out = spoiled or rng.random() < 0.06
        self.background_dominant = not self.cut_out and rng.random() < 0.08
        self.zoom = camera.zoom * rng.uniform(0.94, 1.06)
        self.shift = rng.normal(0, 0.03, 2)
        if self.cut_out:
            self.zoom *= 1.35
            self.shift += rng.uniform((-0.35, -0.1), 0.35)
        if self.background_dominant:
            self.zoom *= 0.72
        self.front, self.behind = self._passers(others)
        self.start = rng.uniform(0, _PANORAMA - 1)
        self.response = _response(camera, rng.uniform(0.85, 1.15))

    def _passers(self, others: list[Person]) -> tuple[list[_Passer], list[_Passer]]:
        rng, front, behind = self.rng, [], []
        if rng.random() < 0.45:
            kind = str(rng.choice(["person", "person", "pole", "bin", "bush"]))
            front.append(self._passer(kind if others else "bin", others))
        if others and rng.random() < 0.4:
            behind.append(self._passer("person", others))
        return front, behind

    def _passer(self, kind: str, others: list[Person]) -> _Passer:
        rng = self.rng
        speed = float(rng.choice([-1, 1])) * rng.uniform(0.05, 0.16) * 16 / max(self.frames, 4)
        width, top = {"person": (0.5, 0.0), "pole": (0.14, -0.1), "bin": (0.55, 0.55), "bush": (0.7, 0.45)}[
            kind
        ]
        color = (44, 92, 52) if kind == "bush" else BAGS[rng.integers(len(BAGS))]
        person = others[rng.integers(len(others))] if kind == "person" else None
        yaw = (np.pi / 2 if speed > 0 else -np.pi / 2) + rng.normal(0, 0.5)
        walk = _draw_walk(rng, yaw) if person else None
        at = rng.uniform(0, self.frames)
        return _Passer(kind, at, speed, color, width * rng.uniform(0.8, 1.2), top, person, walk)

    def conditions(self) -> dict[str, int]:
        """Values of the nine ID-irrelevant columns of the MARS attribute table."""
        facing = np.degrees(np.abs((self.walk.yaw + np.pi) % (2 * np.pi) - np.pi))
        return {
            "motion": 0,
            "pose": int(np.searchsorted([22.5, 67.5, 112.5, 157.5], facing)),
            "occlusion": int(any(self._crosses(p) for p in self.front)),
            "cut-out": int(self.cut_out),
            "multi-person": int(any(self._crosses(p) for p in [*self.front, *self.behind] if p.person)),
            "background-dominant": int(self.background_dominant),
            "target-change": 0,
            "target-miss": int(self.person is None),
            "wrong-target": 0,
        }

    def _crosses(self, passer: _Passer) -> bool:
        centres = 0.5 + passer.speed * (np.arange(self.frames) - passer.at)
        return bool((np.abs(centres - 0.5) < 0.35 + passer.width / 2).any())

    def film(self) -> Iterator[Frame]:
        """Render the frames in order."""
        jitter = np.zeros(3)
        for frame in range(self.frames):
            jitter = 0.7 * jitter + self.rng.normal(0, (0.014, 0.010, 0.012))
            yield self._frame(frame, jitter)

    def _frame(self, frame: int, jitter: np.ndarray) -> Frame:
        height, width = self.size[0] * SUPERSAMPLE, self.size[1] * SUPERSAMPLE
        room = (_PANORAMA - 1) * width
        offset = int(self.start * width + 0.03 * width * frame * np.sin(self.walk.yaw)) % room
        canvas = self.camera.background.crop((offset, 0, offset + width, height))
        view = View(
            x=width * (0.5 + self.shift[0] + jitter[0]),
            y=height * (0.96 + self.shift[1] + jitter[1]),
            scale=min(height, 2 * width) * self.zoom * (1 + jitter[2]),
            pitch=self.camera.pitch,
        )
        for passer in self.behind:
            if self._in_sight(passer, frame):
                self._draw_passer(canvas, passer, view, frame)
        joints = np.zeros((14, 3))
        if self.person is not None:
            points = draw_person(canvas, self.person.look, self.person.cloth, self.walk, view, frame)
            joints[:, :2] = np.round(points / SUPERSAMPLE, 1)
            joints[:, 2] = self._inside(joints)
        for passer in self.front:
            if self._in_sight(passer, frame):
                cover = Image.new("RGBA", canvas.size)
                self._draw_passer(cover, passer, view, frame)
                joints[:, 2] *= _uncovered(cover, joints)
                canvas.paste(cover, mask=cover)
        return Frame(self._expose(canvas.reduce(SUPERSAMPLE)), joints)

    def _in_sight(self, passer: _Passer, frame: int) -> bool:
        return abs(passer.speed * (frame - passer.at)) < 0.5 + passer.width

    def _inside(self, joints: np.ndarray) -> np.ndarray:
        x, y = joints[:, 0], joints[:, 1]
        return (x >= 0) & (x < self.size[1]) & (y >= 0) & (y < self.size[0])

    def _draw_passer(self, canvas: Image.Image, passer: _Passer, view: View, frame: int) -> None:
        width, height = canvas.size
        centre = width * (0.5 + passer.speed * (frame - passer.at))
        if passer.person is not None and passer.walk is not None:
            nearer = View(centre, view.y + 0.02 * height, view.scale * 1.04, view.pitch)
            draw_person(canvas, passer.person.look, passer.person.cloth, passer.walk, nearer, frame)
            return
        pen, half, top = ImageDraw.Draw(canvas), passer.width * width / 2, passer.top * height
        if passer.kind == "bush":
            for k in range(9):
                x, y = (
                    centre + half * np.cos(2.4 * k) * 0.8,
                    top + 0.3 * height + 0.2 * height * np.sin(1.9 * k),
                )
                shade = tuple(int(v * (0.75 + 0.06 * k)) for v in passer.color)
                pen.ellipse((x - half * 0.6, y - half * 0.6, x + half * 0.6, y + half * 0.6), fill=shade)
            pen.rectangle((centre - half, top + 0.35 * height, centre + half, height), fill=passer.color)
            return
        pen.rectangle((centre - half, top, centre + half, height), fill=passer.color)
        dark = tuple(int(v * 0.7) for v in passer.color)
        pen.rectangle((centre + half * 0.4, top, centre + half, height), fill=dark)

    def _expose(self, image: Image.Image) -> Image.Image:
        """Apply the blur, color response and noise of the camera."""
        height, width = self.size
        if self.camera.blur > 0.2:
            image = image.filter(ImageFilter.GaussianBlur(self.camera.blur))
        row, column = self.rng.integers(0, height), self.rng.integers(0, width)
        noise = self.camera.noise[row : row + height, column : column + width]
        exposed = self.response[np.asarray(image), [0, 1, 2]] + noise
        return Image.fromarray(np.clip(exposed, 0, 255).astype(np.uint8))


def _draw_walk(rng: np.random.Generator, yaw: float) -> Walk:
    return Walk(
        yaw=float(yaw),
        phase=rng.uniform(0, 2 * np.pi),
        speed=rng.uniform(0.35, 0.6),
        swing=rng.uniform(0.3, 0.52),
        lean=rng.uniform(0.0, 0.12),
    )


def _response(camera: Camera, exposure: float) -> np.ndarray:
    """Color response of the camera as a lookup table (256, 3) int16: (level, channel) -> output level."""
    level = (np.arange(256)[:, None] / 255) ** camera.gamma
    return np.clip(255 * exposure * camera.gain * level, 0, 255).astype(np.int16)


def _uncovered(cover: Image.Image, joints: np.ndarray) -> np.ndarray:
    """Whether each joint lies on a transparent pixel of the layer `cover`."""
    alpha = np.asarray(cover.getchannel("A"))
    column = np.clip(joints[:, 0] * SUPERSAMPLE, 0, alpha.shape[1] - 1).astype(int)
    row = np.clip(joints[:, 1] * SUPERSAMPLE, 0, alpha.shape[0] - 1).astype(int)
    return alpha[row, column] == 0

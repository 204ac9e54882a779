"""A walking person drawn with Pillow: a 3-D skeleton with a gait; body parts are drawn from back to front.

Body coordinates: X to the person's left, Y up, Z forward; the unit is the standard body height. At yaw 0 the
person faces the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vreid_ext.data.synth.looks import BOTTOM_COLORS, CLOTH_COLUMNS, CLOTH_ROWS, RGB, TOP_COLORS, Look

# Indices into data.joints.JOINTS.
_HEAD, _NECK = 0, 1
_R_SHOULDER, _R_ELBOW, _R_WRIST, _L_SHOULDER, _L_ELBOW, _L_WRIST = range(2, 8)
_L_HIP, _L_KNEE, _L_ANKLE, _R_HIP, _R_KNEE, _R_ANKLE = range(8, 14)

THIGH, SHANK, UPPER_ARM, FOREARM = 0.245, 0.245, 0.165, 0.15
TORSO, NECK, HEAD = 0.30, 0.045, 0.075


@dataclass(frozen=True)
class Walk:
    """Motion of a person in one tracklet. Angles in radians; `swing` is the largest angle of the thigh."""

    yaw: float
    phase: float
    speed: float  # phase per frame
    swing: float
    lean: float


@dataclass(frozen=True)
class View:
    """Orthographic camera: body units to pixels. `pitch` > 0 looks down; (x, y) is the feet's position."""

    x: float
    y: float
    scale: float
    pitch: float


def pose(look: Look, walk: Walk, frame: float) -> np.ndarray:
    """Joint positions (14, 3) in body coordinates, in the order of `JOINTS`, the lower foot on the ground."""
    phase = walk.phase + walk.speed * frame
    joints = np.zeros((14, 3))
    hip_half, shoulder_half = (
        0.058 * look.girth,
        0.112 * (0.5 + 0.5 * look.girth) * (0.94 if look.female else 1.0),
    )
    for hip, side, offset in ((_L_HIP, 1.0, 0.0), (_R_HIP, -1.0, np.pi)):
        thigh = walk.swing * np.sin(phase + offset)
        # The knee bends while the leg swings forward.
        flexion = 0.08 + 1.5 * walk.swing * max(0.0, np.cos(phase + offset))
        joints[hip] = (side * hip_half, 0.0, 0.0)
        joints[hip + 1] = joints[hip] + THIGH * _swung(thigh)
        joints[hip + 2] = joints[hip + 1] + SHANK * _swung(thigh - flexion)
    neck = np.array([0.0, TORSO * np.cos(walk.lean), TORSO * np.sin(walk.lean)])
    joints[_NECK] = neck
    joints[_HEAD] = neck
    joints[_HEAD, 1:] += NECK + HEAD, 0.3 * walk.lean
    for shoulder, side, offset in ((_L_SHOULDER, 1.0, np.pi), (_R_SHOULDER, -1.0, 0.0)):
        arm = 0.85 * walk.swing * np.sin(phase + offset)
        joints[shoulder] = neck
        joints[shoulder, :2] += side * shoulder_half, -0.02
        joints[shoulder + 1] = joints[shoulder] + UPPER_ARM * _swung(arm, side * 0.16)
        joints[shoulder + 2] = joints[shoulder + 1] + FOREARM * _swung(arm + 0.35, side * 0.04)
    joints[:, 1] -= joints[:, 1].min() - 0.035
    return joints * look.height


def project(points: np.ndarray, yaw: float, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Project `points` (N, 3) in body coordinates to pixels (N, 2) and a depth (N,), larger if nearer."""
    x, y, z = points.T
    across = x * np.cos(yaw) + z * np.sin(yaw)
    near = z * np.cos(yaw) - x * np.sin(yaw)
    up = y * np.cos(view.pitch) - near * np.sin(view.pitch)
    return np.stack([view.x + view.scale * across, view.y - view.scale * up], 1), near


def _swung(angle: float, aside: float = 0.0) -> np.ndarray:
    """Direction of a hanging limb that is swung forward by `angle` and sideways by `aside`."""
    return np.array([aside, -np.cos(angle), np.sin(angle)])


def draw_person(
    canvas: Image.Image, look: Look, cloth: np.ndarray, walk: Walk, view: View, frame: float
) -> np.ndarray:
    """Draw a person onto an RGB or RGBA canvas and return the joint positions (14, 2) in pixels.

    `cloth` is `weave(look)`, passed in as it is the same for all frames.
    """
    joints = pose(look, walk, frame)
    return _Figure(canvas, look, cloth, joints, walk.yaw, view).draw()


class _Figure:
    def __init__(
        self, canvas: Image.Image, look: Look, cloth: np.ndarray, joints: np.ndarray, yaw: float, view: View
    ) -> None:
        self.canvas, self.pen = canvas, ImageDraw.Draw(canvas)
        self.look, self.cloth, self.yaw, self.view = look, cloth, yaw, view
        self.joints = joints
        self.points, self.near = project(joints, yaw, view)
        self.unit = view.scale * look.height
        self.front = np.cos(yaw)

    def draw(self) -> np.ndarray:
        look = self.look
        pack_near = -self.front * 0.1
        layers = [
            (self.near[[_L_HIP, _L_KNEE]].mean(), lambda: self._leg(_L_HIP)),
            (self.near[[_R_HIP, _R_KNEE]].mean(), lambda: self._leg(_R_HIP)),
            (0.005, self._torso),
            (self.near[_L_ELBOW], lambda: self._arm(_L_SHOULDER)),
            (self.near[_R_ELBOW], lambda: self._arm(_R_SHOULDER)),
            (0.01, self._head),
        ]
        if look.bottom == "skirt":
            layers.append((0.004, self._skirt))
        if look.backpack:
            layers.append((pack_near, self._backpack))
        if look.shoulder_bag:
            layers.append((0.02 - 0.12 * np.sin(self.yaw), self._shoulder_bag))
        if look.hand_bag:
            layers.append((self.near[_R_WRIST] + 0.01, self._hand_bag))
        # The depth of an arm is that of its elbow, as the shoulder has the same depth as the torso.
        for _, paint in sorted(layers, key=lambda layer: layer[0]):
            paint()
        return self.points

    def _limb(self, a: int, b: int, start: float, end: float, color: RGB, cut: float = 1.0) -> None:
        """Draw a tapered limb from joint a to a fraction `cut` of the way to joint b, shaded on its right."""
        (px, py), (qx, qy) = self.points[a].tolist(), self.points[b].tolist()
        qx, qy = px + (qx - px) * cut, py + (qy - py) * cut
        length = max(math.hypot(qx - px, qy - py), 1e-6)
        nx, ny = (py - qy) / length, (qx - px) / length
        if nx < 0:
            nx, ny = -nx, -ny
        r, s = start * self.unit, end * self.unit
        lit = (px - nx * r, py - ny * r), (qx - nx * s, qy - ny * s)
        edge = (qx + nx * s, qy + ny * s), (px + nx * r, py + ny * r)
        self.pen.polygon((*lit, *edge), fill=color)
        self.pen.ellipse((px - r, py - r, px + r, py + r), fill=color)
        self.pen.ellipse((qx - s, qy - s, qx + s, qy + s), fill=color)
        ridge = (px + nx * r * 0.3, py + ny * r * 0.3), (qx + nx * s * 0.3, qy + ny * s * 0.3)
        self.pen.polygon((*ridge, *edge), fill=_dim(color, 0.8))

    def _disc(self, centre: np.ndarray, rx: float, ry: float, color: RGB) -> None:
        x, y = centre.tolist()
        self.pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=color)

    def _leg(self, hip: int) -> None:
        look, knee, ankle = self.look, hip + 1, hip + 2
        cloth, girth = BOTTOM_COLORS[look.bottom_color], 0.5 + 0.5 * look.girth
        far = self.near[knee] < self.near[_L_HIP : _R_HIP + 1].mean() - 0.01
        cloth, skin = (_dim(cloth, 0.82), _dim(look.skin, 0.85)) if far else (cloth, look.skin)
        self._shoe(ankle)
        bare = look.bottom != "trousers"
        self._limb(knee, ankle, 0.034 * girth, 0.024 * girth, skin if bare else cloth)
        self._limb(hip, knee, 0.056 * girth, 0.040 * girth, skin if look.bottom == "skirt" else cloth)
        if look.bottom == "shorts":
            self._limb(hip, knee, 0.058 * girth, 0.050 * girth, cloth, cut=0.92)
        # The stripe is on the outer seam: it is visible only if the outer side of the leg faces the camera.
        outside = -np.sin(self.yaw) * (1.0 if hip == _L_HIP else -1.0)
        if look.side_stripe and look.bottom != "skirt" and outside > -0.5:
            self._limb(hip, knee, 0.010, 0.010, look.accent)
            if not bare:
                self._limb(knee, ankle, 0.009, 0.008, look.accent)

    def _shoe(self, ankle: int) -> None:
        toe_body = self.joints[ankle] + np.array([0.0, -0.025, 0.075]) * self.look.height
        toe = project(toe_body[None], self.yaw, self.view)[0][0]
        heel = _moved(self.points[ankle], 0.0, 0.012 * self.unit)
        width = 0.022 * self.unit
        self.pen.line([tuple(heel), tuple(toe)], fill=self.look.shoes, width=max(1, int(2 * width)))
        self._disc(heel, width, width, self.look.shoes)
        self._disc(toe, width, width * 0.8, self.look.shoes)

    def _arm(self, shoulder: int) -> None:
        look, elbow, wrist = self.look, shoulder + 1, shoulder + 2
        sleeve = look.accent if look.texture == "yoke" else TOP_COLORS[look.top_color]
        sleeve = _dim(sleeve, 0.88 if self.near[shoulder] >= 0 else 0.72)
        girth = 0.5 + 0.5 * look.girth
        self._disc(self.points[wrist], 0.022 * self.unit, 0.024 * self.unit, look.skin)
        self._limb(elbow, wrist, 0.026 * girth, 0.020 * girth, sleeve if look.long_sleeves else look.skin)
        self._limb(shoulder, elbow, 0.036 * girth, 0.028 * girth, sleeve if look.long_sleeves else look.skin)
        if not look.long_sleeves:
            self._limb(shoulder, elbow, 0.038 * girth, 0.034 * girth, sleeve, cut=0.6)

    def _half_width(self, left: int, right: int, depth: float, grow: float) -> float:
        """Half of the visible width, in pixels, of the body's elliptic cross-section at a pair of joints."""
        half = abs(self.joints[left, 0] - self.joints[right, 0]) / 2 * grow
        return (
            float(np.hypot(half * np.cos(self.yaw), depth * self.look.height * np.sin(self.yaw)))
            * self.view.scale
        )

    def _torso(self) -> None:
        girth = self.look.girth
        top, bottom = self.points[_NECK], (self.points[_L_HIP] + self.points[_R_HIP]) / 2
        top_half = self._half_width(_L_SHOULDER, _R_SHOULDER, 0.068 * girth, 1.12)
        waist_half = self._half_width(_L_HIP, _R_HIP, 0.075 * girth, 1.5)
        u = self.unit
        neck_half = 0.03 * u
        middle, hem = (top + bottom) / 2, _moved(bottom, 0.0, 0.035 * u)
        outline = [
            _moved(top, -neck_half, -0.012 * u), _moved(top, neck_half, -0.012 * u),
            _moved(top, top_half * 0.85, 0.012 * u), _moved(top, top_half, 0.05 * u),
            _moved(middle, (top_half + waist_half) / 2.1, 0.0),
            _moved(hem, waist_half, 0.0), _moved(hem, -waist_half, 0.0),
            _moved(middle, -(top_half + waist_half) / 2.1, 0.0),
            _moved(top, -top_half, 0.05 * u), _moved(top, -top_half * 0.85, 0.012 * u),
        ]  # fmt: skip
        self._disc(top, neck_half, 0.05 * u, _dim(self.look.skin, 0.85))
        self._wrap(np.array(outline), self.cloth)
        if self.look.backpack and self.front > 0:
            self._straps()

    def _wrap(self, outline: np.ndarray, cloth: np.ndarray) -> None:
        """Fill an outline with the visible half of the cloth cylinder, darker towards the edges."""
        low, high = np.floor(outline.min(0)).astype(int), np.ceil(outline.max(0)).astype(int)
        width, height = np.maximum(high - low, 1)
        x = (np.arange(width) + 0.5) / width * 2 - 1
        turn = (np.arcsin(x) - self.yaw) / (2 * np.pi) + 0.5
        columns = np.floor(turn % 1.0 * CLOTH_COLUMNS).astype(int) % CLOTH_COLUMNS
        rows = np.arange(height) * CLOTH_ROWS // height
        light = 1.0 - 0.3 * x**2 - 0.08 * x
        patch = (cloth[rows[:, None], columns[None]] * light[None, :, None]).astype(np.uint8)
        mask = Image.new("L", (int(width), int(height)))
        ImageDraw.Draw(mask).polygon([tuple(p) for p in outline - low], fill=255)
        self.canvas.paste(Image.fromarray(patch), (int(low[0]), int(low[1])), mask)

    def _skirt(self) -> None:
        hips = (self.points[_L_HIP] + self.points[_R_HIP]) / 2
        half = self._half_width(_L_HIP, _R_HIP, 0.08 * self.look.girth, 1.45)
        knees = (self.points[_L_KNEE, 0] + self.points[_R_KNEE, 0]) / 2
        spread = abs(self.points[_L_KNEE, 0] - self.points[_R_KNEE, 0]) / 2 + 0.06 * self.unit
        drop = THIGH * self.unit
        hem = np.array([(hips[0] + knees) / 2, hips[1] + 0.95 * drop])
        flare = max(half * 1.25, spread)
        cloth = np.empty((CLOTH_ROWS, CLOTH_COLUMNS, 3), np.uint8)
        cloth[:] = BOTTOM_COLORS[self.look.bottom_color]
        corners = [
            _moved(hips, -half, 0),
            _moved(hips, half, 0),
            _moved(hem, flare, 0),
            _moved(hem, -flare, 0),
        ]
        self._wrap(np.array(corners), cloth)

    def _head(self) -> None:
        look, u, head = self.look, self.unit, self.points[_HEAD]
        side = np.sin(self.yaw)
        rx, ry = (0.050 + 0.008 * abs(side)) * u, 0.068 * u
        if look.long_hair and self.front > -0.2:
            self._disc(_moved(head, -0.025 * u * side, 0.045 * u), rx * 1.12, ry * 1.35, look.hair)
        self._disc(head, rx * 1.05, ry * 1.05, look.hair)
        if self.front > -0.5:  # the face moves across the head with the yaw and is hidden from behind
            shown = np.clip(self.front + 0.5, 0.0, 1.0)
            face = _moved(head, 0.022 * u * side, 0.014 * u)
            self._disc(face, rx * (0.55 + 0.3 * shown), ry * 0.82, look.skin)
            fringe = _moved(head, -0.012 * u * side, -0.042 * u)
            self._disc(fringe, rx * 0.98, ry * 0.42, look.hair)
        if look.long_hair and self.front <= -0.2:
            self._disc(_moved(head, -0.02 * u * side, 0.05 * u), rx * 1.1, ry * 1.4, look.hair)
        if look.hat:
            crown = _moved(head, 0.0, -0.035 * u)
            x, y = crown
            self.pen.pieslice(
                (x - rx * 1.12, y - ry * 0.9, x + rx * 1.12, y + ry * 0.7), 180, 360, fill=look.hat_color
            )
            brim = _moved(crown, 0.055 * u * side, 0.006 * u + 0.012 * u * max(self.front, 0.0))
            self._disc(brim, rx * 0.95, 0.013 * u, _dim(look.hat_color, 0.8))

    def _backpack(self) -> None:
        look, u = self.look, self.unit
        on_back = (self.joints[_NECK] + self.joints[[_L_HIP, _R_HIP]].mean(0)) / 2
        on_back[1:] += 0.03, -0.1 * look.height
        centre = project(on_back[None], self.yaw, self.view)[0][0]
        half = np.hypot(0.085 * np.cos(self.yaw), 0.05 * np.sin(self.yaw)) * u
        box = (centre[0] - half, centre[1] - 0.125 * u, centre[0] + half, centre[1] + 0.115 * u)
        self.pen.rounded_rectangle(box, radius=0.04 * u, fill=look.bag_color)
        self.pen.rounded_rectangle(
            (centre[0] - half * 0.7, centre[1] + 0.01 * u, centre[0] + half * 0.7, centre[1] + 0.09 * u),
            radius=0.02 * u,
            fill=_dim(look.bag_color, 0.75),
        )

    def _straps(self) -> None:
        """Draw the straps of the backpack, which are visible from the front."""
        for shoulder, hip in ((_L_SHOULDER, _L_HIP), (_R_SHOULDER, _R_HIP)):
            start = self.points[_NECK] * 0.4 + self.points[shoulder] * 0.6
            end = start * 0.45 + (self.points[_NECK] * 0.3 + self.points[hip] * 0.7) * 0.55
            self.pen.line(
                [tuple(start), tuple(end)], fill=self.look.bag_color, width=max(1, int(0.02 * self.unit))
            )

    def _shoulder_bag(self) -> None:
        u, hip = self.unit, self.points[_R_HIP]
        strap = [tuple(self.points[_L_SHOULDER]), tuple(_moved(hip, 0.0, -0.02 * u))]
        self.pen.line(strap, fill=_dim(self.look.bag_color, 0.8), width=max(1, int(0.018 * u)))
        half = np.hypot(0.035 * np.cos(self.yaw), 0.08 * np.sin(self.yaw)) * u
        box = (hip[0] - half, hip[1] - 0.02 * u, hip[0] + half, hip[1] + 0.1 * u)
        self.pen.rounded_rectangle(box, radius=0.02 * u, fill=self.look.bag_color)

    def _hand_bag(self) -> None:
        u, hand = self.unit, self.points[_R_WRIST]
        half = np.hypot(0.03 * np.cos(self.yaw), 0.07 * np.sin(self.yaw)) * u
        handle = (hand[0] - half * 0.6, hand[1] - 0.01 * u, hand[0] + half * 0.6, hand[1] + 0.08 * u)
        self.pen.arc(handle, 180, 360, fill=self.look.bag_color, width=max(1, int(0.012 * u)))
        box = (hand[0] - half, hand[1] + 0.035 * u, hand[0] + half, hand[1] + 0.135 * u)
        self.pen.rounded_rectangle(box, radius=0.015 * u, fill=self.look.bag_color)


def _moved(point: np.ndarray, dx: float, dy: float) -> np.ndarray:
    return np.array([point[0] + dx, point[1] + dy])


def _dim(color: RGB, factor: float) -> RGB:
    r, g, b = color
    return int(r * factor), int(g * factor), int(b * factor)

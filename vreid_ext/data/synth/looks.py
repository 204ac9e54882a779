"""Appearance of the rendered people: clothes, build, hair, hat and bags.

People are drawn in *families* with the same colors. Members of a family differ in the texture and cut of
their clothes and in accessories, so that the average color identifies the family but not the person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RGB = tuple[int, int, int]

# The index of a color is its value in the MARS attribute table, which has one more value for multicolored.
TOP_COLORS: dict[str, RGB] = {
    "black": (38, 38, 44),
    "purple": (112, 66, 146),
    "green": (58, 128, 78),
    "blue": (56, 88, 170),
    "grey": (128, 128, 132),
    "white": (218, 218, 214),
    "yellow": (206, 176, 66),
    "red": (178, 52, 54),
}
BOTTOM_COLORS: dict[str, RGB] = {
    "white": (206, 206, 202),
    "purple": (96, 62, 122),
    "black": (36, 36, 42),
    "green": (66, 100, 66),
    "grey": (112, 112, 118),
    "pink": (200, 130, 148),
    "yellow": (190, 164, 84),
    "blue": (54, 74, 124),
    "brown": (110, 80, 56),
}
SKINS: tuple[RGB, ...] = ((226, 188, 160), (198, 152, 120), (150, 106, 78), (104, 72, 54))
HAIRS: tuple[RGB, ...] = ((30, 26, 24), (70, 48, 34), (142, 106, 64), (120, 118, 116))
BAGS: tuple[RGB, ...] = ((34, 34, 38), (150, 46, 44), (52, 70, 118), (118, 86, 56), (84, 104, 66))

TEXTURES = ("plain", "hoops", "pinstripe", "check", "dots", "logo", "jacket", "yoke", "sash")
_COMPLEX_TEXTURES = {"check"}

# The cloth is an unrolled cylinder: column 0 is at the spine, the middle column at the chest.
CLOTH_ROWS, CLOTH_COLUMNS = 48, 96


@dataclass(frozen=True)
class Look:
    """Appearance of a person, the same in all tracklets.

    Lengths are relative to a standard body height; colors are sRGB.
    """

    top_color: str
    bottom_color: str
    texture: str
    accent: RGB
    texture_scale: int
    long_sleeves: bool
    bottom: str  # "trousers" | "shorts" | "skirt"
    side_stripe: bool
    hat: bool
    hat_color: RGB
    long_hair: bool
    hair: RGB
    skin: RGB
    shoes: RGB
    backpack: bool
    shoulder_bag: bool
    hand_bag: bool
    bag_color: RGB
    female: bool
    age: int  # 0 child, 1 teenager, 2 adult, 3 old
    height: float
    girth: float

    def attributes(self) -> dict[str, int]:
        """Values of the twelve ID-relevant columns of the MARS attribute table, by their published names."""
        complex_top = self.texture in _COMPLEX_TEXTURES
        return {
            "top color": len(TOP_COLORS) if complex_top else list(TOP_COLORS).index(self.top_color),
            "bottom color": list(BOTTOM_COLORS).index(self.bottom_color),
            "age": self.age,
            "top length": int(not self.long_sleeves),
            "bottom length": int(self.bottom != "trousers"),
            "shoulder bag": int(self.shoulder_bag),
            "backpack": int(self.backpack),
            "hat": int(self.hat),
            "hand bag": int(self.hand_bag),
            "hair": int(self.long_hair),
            "gender": int(self.female),
            "bottom type": int(self.bottom != "skirt"),
        }


def draw_looks(rng: np.random.Generator, count: int, family: int = 3) -> list[Look]:
    """Draw `count` people in groups of `family` with the same colors of clothes, skin and shoes."""
    looks: list[Look] = []
    while len(looks) < count:
        top, bottom = str(rng.choice(list(TOP_COLORS))), str(rng.choice(list(BOTTOM_COLORS)))
        accent = TOP_COLORS[str(rng.choice([name for name in TOP_COLORS if name != top]))]
        skin = SKINS[rng.integers(len(SKINS))]
        shoes = BAGS[rng.integers(len(BAGS))] if rng.random() < 0.6 else (214, 214, 210)
        textures = rng.permutation(TEXTURES)[: min(family, count - len(looks))]
        looks += [_draw_look(rng, top, bottom, accent, skin, shoes, str(texture)) for texture in textures]
    return looks


def _draw_look(
    rng: np.random.Generator, top: str, bottom: str, accent: RGB, skin: RGB, shoes: RGB, texture: str
) -> Look:
    female = bool(rng.random() < 0.45)
    age = int(rng.choice(4, p=[0.06, 0.34, 0.48, 0.12]))
    bag = rng.choice(["none", "backpack", "shoulder", "hand"], p=[0.34, 0.26, 0.2, 0.2])
    cut = rng.choice(["trousers", "shorts", "skirt"], p=[0.58, 0.27, 0.15] if female else [0.7, 0.3, 0.0])
    height = (0.80, 0.94, 1.0, 0.96)[age] - 0.04 * female + rng.uniform(-0.03, 0.03)
    return Look(
        top_color=top,
        bottom_color=bottom,
        texture=texture,
        accent=accent,
        texture_scale=int(rng.integers(3, 6)),
        long_sleeves=bool(rng.random() < 0.5),
        bottom=str(cut),
        side_stripe=bool(rng.random() < 0.2),
        hat=bool(rng.random() < 0.25),
        hat_color=BAGS[rng.integers(len(BAGS))],
        long_hair=bool(rng.random() < (0.75 if female else 0.08)),
        hair=HAIRS[3] if age == 3 else HAIRS[rng.integers(3)],
        skin=skin,
        shoes=shoes,
        backpack=bool(bag == "backpack"),
        shoulder_bag=bool(bag == "shoulder"),
        hand_bag=bool(bag == "hand"),
        bag_color=BAGS[rng.integers(len(BAGS))],
        female=female,
        age=age,
        height=float(height),
        girth=float(rng.uniform(0.85, 1.25)),
    )


def weave(look: Look) -> np.ndarray:
    """Texture of the top as an unrolled cylinder (48, 96, 3) uint8.

    Rows run from neck to hip, columns around the body.
    """
    cloth = np.empty((CLOTH_ROWS, CLOTH_COLUMNS, 3), np.uint8)
    cloth[:] = TOP_COLORS[look.top_color]
    row, column = np.mgrid[:CLOTH_ROWS, :CLOTH_COLUMNS]
    chest = np.abs(column - CLOTH_COLUMNS // 2)
    period = 2 * look.texture_scale
    match look.texture:
        case "hoops":
            marked = row % (period + 4) < look.texture_scale + 2
        case "pinstripe":
            marked = column % period < 2
        case "check":
            marked = (row // (look.texture_scale + 2) + column // (look.texture_scale + 3)) % 2 == 0
        case "dots":
            step = period + 2
            marked = (row % step - step // 2) ** 2 + (column % step - step // 2) ** 2 < (0.35 * step) ** 2
        case "logo":
            marked = (chest < 9) & (row > 8) & (row < 24)
        case "jacket":
            marked = chest < 5
        case "yoke":
            marked = row < CLOTH_ROWS // 3
        case "sash":
            marked = np.abs(row - (column - 20) * 0.8) < 4
        case _:
            marked = np.zeros_like(row, bool)
    cloth[marked] = look.accent
    return cloth

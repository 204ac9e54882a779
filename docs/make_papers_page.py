"""Writes papers.md, from the recipes and the table that they are tested against.

Run it after a change of either: python docs/make_papers_page.py
"""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vreid_ext.engine import Recipe, load_recipe

HERE = Path(__file__).parent
TABLE = HERE.parent / "python_tests" / "engine" / "paper_table.py"
TITLES = {
    "sta": "STA (Fu et al., AAAI 2019)",
    "drsta": "DRSTA (Li et al., CVPR 2018)",
    "stal": "STAL (Chen et al., TIP 2019)",
    "asta": "ASTA and AITL (Chen et al., 2020)",
}
INTRO = """# Papers, rows, recipes

Written by `python docs/make_papers_page.py`; do not edit. Every recipe of a paper's table, and what
`python_tests/engine/test_paper_recipes.py` pins: the keys that all recipes of a system share, those in which
a row differs, and the published figures. A recipe that drifts from this page fails the test.

A row is trained with one command, `vreid train RECIPE dataset.root=DIR`; what else a row needs is said below.
"code" is the authors' public code, "ours" a choice that no source states.
"""
NOTES = {
    "sta": """\
Re-ranked figures of a run that is there: `vreid eval RUN --rerank`.
""",
    "drsta": """\
iLIDS-VID and PRID2011 are means over ten splits: `--splits all`. Rows before "Ind" need the baseline's
checkpoint: `model.weights=RUN/checkpoints/STEP/weights.safetensors`. `drsta_joint_*` train one model on the
three video sets together, as the paper does before "Ind", and test it on each: `dataset.0.root=PRID
dataset.1.root=ILIDS dataset.2.root=MARS`. `drsta_prid_*`, `drsta_ilids_*` and `drsta_mars_*` train on one set
alone and carry the same figures. The paper's first stage, on image sets, is `drsta_images`.
""",
    "stal": """\
iLIDS-VID and PRID2011 are means over ten splits: `--splits all`. `stal_ilids_on_prid` is trained as
`stal_ilids`; its figures are those of `vreid eval RUN dataset.name=prid dataset.root=PRID`. Without training:
Fig. 5 by `model.test_attention`, Fig. 6 by `model.test_branches`, Fig. 7 by `model.test_branches=local
model.test_parts=[torso]` and so on. Fig. 9 needs training, by `model.global_dim` and `model.part_dim`.
""",
    "asta": """\
The attribute table is looked for in the data set's folder. Table 4's other halves: evaluate the run on
the other set, `vreid eval RUN dataset.name=dukev dataset.root=DUKE dataset.options.gallery=null`.
""",
}


def page(load: Callable[[str], Recipe] = load_recipe) -> str:
    """The text of papers.md; `load` gives a recipe by its name."""
    table = runpy.run_path(str(TABLE))
    lines = [INTRO]
    for system, title in TITLES.items():
        lines += [f"## {title}\n", NOTES[system], "| key | value | stated in |", "|---|---|---|"]
        lines += [
            f"| `{key}` | {_value(value)} | {source} |" for key, value, source in table["COMMON"][system]
        ]
        lines += ["", "| row | recipe | differs in | published, per cent |", "|---|---|---|---|"]
        for name, row in table["RECIPES"].items():
            if name.split("_")[0] == system:
                lines.append(_row(name, row, load(name)))
        lines.append("")
    return "\n".join(lines)


def _row(name: str, row: Any, recipe: Recipe) -> str:
    differs = ", ".join(f"`{key}={_plain(value)}`" for key, value in row.otherwise.items())
    figures = []
    for frames, values in recipe.paper.rows.items():
        some = ", ".join(f"{figure} {value:g}" for figure, value in values.items())
        figures.append(f"{frames} frames: {some}" if len(recipe.paper.rows) > 1 else some)
    for dataset, values in recipe.paper.sets.items():
        figures.append(f"{dataset}: " + ", ".join(f"{figure} {value:g}" for figure, value in values.items()))
    return f"| {recipe.paper.source} | `{name}` | {differs} | {'; '.join(figures)} |"


def _value(value: Any) -> str:
    return "the default" if value is None else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")


if __name__ == "__main__":
    (HERE / "papers.md").write_text(page(), encoding="utf-8")

"""Table 1 of the ASTA paper on a rendered set: mean and standard deviation over several seeds, DVDP curves.

    python benchmarks/asta_ablation.py OUT [KEY=VALUE ...]

Can be interrupted at any time. The same command then skips finished runs and resumes the unfinished one.
Writes OUT/table.md and OUT/dvdp.png (first seed).
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from vreid_ext import engine
from vreid_ext.data.synth import synthesize
from vreid_ext.report import plot_dvdp

ROWS = {
    "Baseline": "synth_asta_baseline",
    "+ ASTA": "synth_asta_attention",
    "+ ITL": "synth_asta_itl",
    "+ AITL": "synth_asta_aitl",
    "+ ASTA + AITL": "synth_asta",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ids", type=int, default=60)
    arguments = parser.parse_args()
    root = arguments.out / "set"
    if not (root / "synth.json").is_file():
        synthesize(root, ids=arguments.ids, cameras=4, tracklets=2, frames=8, size=(64, 32), seed=0)

    lines = [
        "| | mAP (%) | rank-1 (%) | DVDP, last epoch | attribute accuracy (%) |",
        "|---|---|---|---|---|",
    ]
    for label, recipe in ROWS.items():
        results = []
        for seed in range(arguments.seeds):
            options = [f"dataset.root={root}", f"seed={seed}", *arguments.overrides]
            run = arguments.out / f"{recipe}-{seed}"
            row = engine.train(engine.load_recipe(recipe, options), run, quiet=True)["rows"][0]
            print(label, seed, f"mAP {row['mAP']:.3f}", flush=True)
            results.append({**row, "dvdp": last_dvdp(run)})
        cells = [spread([100 * row[name] for row in results], 1) for name in ("mAP", "rank1")]
        cells.append(spread([row["dvdp"] for row in results], 4))
        if "attributes" in results[0]:
            recognised = [mean(each["accuracy"] for each in row["attributes"].values()) for row in results]
            cells.append(spread([100 * value for value in recognised], 1))
        else:
            cells.append("")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    (arguments.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    logs = {label: arguments.out / f"{recipe}-0" / "log.jsonl" for label, recipe in ROWS.items()}
    plot_dvdp(logs, arguments.out / "dvdp.png")


def last_dvdp(run: Path) -> float:
    """Mean DVDP over the batches of the last epoch."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line["dvdp"] for line in lines if line["kind"] == "epoch"][-1]


def spread(values: list[float], digits: int) -> str:
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    main()

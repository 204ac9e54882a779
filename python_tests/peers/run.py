"""Runs a peer's tests on this package's drop-ins and prints the result as a row of a table.

    python python_tests/peers/run.py PEER FOLDER

FOLDER holds the sources of PEER, as its repository has them; nothing is written there.

    pytorch-metric-learning   its own tests, untouched, with the classes of `losses.metric_learning`
    torchmetrics              its own `MetricTester` on `metrics.ReIDMetric` (needs the package cachier)
    torchreid                 its functions beside those of `compat.torchreid`; it has no tests
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What pytest is called with in FOLDER, and the folders of FOLDER that Python imports from.
PEERS = {
    "pytorch-metric-learning": (
        [
            *("-p", "swap_metric_learning"),
            "tests/miners/test_batch_hard_miner.py",
            "tests/losses/test_triplet_margin_loss.py",
            "tests/losses/test_cross_batch_memory.py",
            "tests/losses/test_losses_without_labels.py",
            "tests/losses/test_multiple_losses.py",
            "tests/losses/test_self_supervised_loss.py",
            "tests/reducers/test_setting_reducers.py",
            "tests/distances/test_custom_check_shape.py",
        ],
        ["src"],
    ),
    "torchmetrics": (["-p", "unittests.conftest", str(HERE / "reid_metric.py")], ["src", "tests"]),
    "torchreid": ([str(HERE / "beside_torchreid.py")], []),
}


def main(peer: str, folder: Path) -> int:
    arguments, paths = PEERS[peer]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([*(str(folder / path) for path in paths), str(ROOT), str(HERE)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PEER": str(folder),
            # Of pytorch-metric-learning's tests: every dtype, with the statistics.
            "TEST_DEVICE": os.environ.get("TEST_DEVICE", "cpu"),
            "WITH_COLLECT_STATS": "true",
            # Of torchmetrics': two processes, and where reference results are cached.
            "USE_PYTEST_POOL": "1",
            "PYTEST_REFERENCE_CACHE": scratch,
        }
        quiet = ["-q", "-p", "no:cacheprovider", "--import-mode=prepend", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *quiet, *arguments]
        code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
        suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    print(f"| {peer} | {passed} of {counts['tests']} pass | {counts['skipped']} skipped |")
    return code


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in PEERS or not Path(sys.argv[2]).is_dir():
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(PEERS)}}} FOLDER")
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))

"""INT8 by the quantizers of the runtimes: the loss in mAP is measured and limited."""

import pytest
import torch

from vreid_ext import engine
from vreid_ext.engine.encoder import open_encoder
from vreid_ext.engine.network import Network
from vreid_ext.engine.quantize import export_int8

pytest.importorskip("onnxruntime", reason="needs the extra [export]")

SMALL = [
    "model.backbone=resnet18", "model.feature_dim=32", "input.height=32", "input.width=16", "input.frames=2",
    "batch.p=2", "batch.k=2", "train.epochs=1", "train.workers=0", "stages=[]",
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings(
    "ignore:# The axis name",  # of torch's exporter
    "ignore::DeprecationWarning:onnxruntime",
    "ignore::DeprecationWarning:nncf",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, mars_root):
    folder = tmp_path_factory.mktemp("run")
    engine.train(engine.load_recipe("synth_avg", [f"dataset.root={mars_root}", *SMALL]), folder, quiet=True)
    return folder


@pytest.mark.parametrize("format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_loss_and_the_gain_are_measured(run, mars_root, tmp_path, format):
    if format == "openvino":
        pytest.importorskip("nncf", reason="needs the extra [deploy]")
    file = tmp_path / ("net.onnx" if format == "onnx" else "net.xml")
    result = export_int8(run, file, format=format, calibration=4)
    figures = result["int8"]
    assert figures["loss"]["value"] == pytest.approx(figures["mAP_float32"] - figures["mAP"], abs=1e-6)
    assert figures["bytes"] < 0.4 * figures["bytes_float32"]
    assert figures["speedup"] == figures["frames_per_second"] / figures["frames_per_second_float32"] > 0
    assert figures["calibration"] == 4
    evaluated = engine.evaluate_checkpoint(
        file, [f"dataset.root={mars_root}", "train.workers=0"], out=tmp_path / "figures.json"
    )
    assert evaluated["rows"][0]["mAP"] == pytest.approx(figures["mAP"])

    clips = torch.zeros(1, 2, 3, 32, 16)
    expected, given = engine.open_checkpoint(run)[0], Network(1, weights=file).eval()
    with torch.no_grad():
        one, other = expected(clips), given(clips)
    assert not torch.equal(one, other)
    assert torch.cosine_similarity(one, other).item() > 0.9
    assert open_encoder(file, None, []).identity()["precision"] == "int8"


def test_a_loss_above_the_limit_is_an_error_and_leaves_no_file(run, tmp_path, monkeypatch, vreid):
    from vreid_ext.engine import quantize

    loss = {"mAP": 0.5, "mAP_float32": 0.52, "loss": {"value": 0.02, "low": 0.0, "high": 0.04},
            "queries": 8, "persons": 4}  # fmt: skip
    monkeypatch.setattr(quantize, "_loss", lambda *args: loss)
    out = tmp_path / "net.onnx"
    with pytest.raises(RuntimeError, match=r"^max_loss: expected a loss of at most 1.0 points .*, got 2.00"):
        export_int8(run, out, calibration=1, max_loss=1.0)
    assert list(tmp_path.iterdir()) == []
    code, printed, errors = vreid("export", str(run), "--int8", "--max-loss", "2.5", "--calibration", "1",
                                  "--out", str(out))  # fmt: skip
    assert code == 0, errors
    assert "mAP 52.00 -> 50.00: loss 2.00 points [0.00, 4.00] (8 queries of 4 persons)" in printed
    assert out.is_file()


def test_wrong_arguments(run, tmp_path, vreid):
    with pytest.raises(ValueError, match=r"^format: expected one of"):
        export_int8(run, format="torch")
    with pytest.raises(ValueError, match=r"^calibration: expected an int >= 1 .*, got 0"):
        export_int8(run, calibration=0)
    with pytest.raises(ValueError, match=r"^out: expected a file with the suffix .onnx, got .*net.xml'"):
        export_int8(run, tmp_path / "net.xml")
    assert vreid("export", str(run), "--int8", "--format", "torch")[2].startswith("vreid: error: --int8: exp")
    assert vreid("export", str(run), "--max-loss", "1")[2].startswith("vreid: error: --max-loss: expected --")

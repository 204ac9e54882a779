"""Every system as ONNX and as an exported program, with numbers of clips and frames that were not traced."""

import json
import subprocess
import sys

import pytest
import torch

from vreid_ext import engine
from vreid_ext.engine import export as module
from vreid_ext.engine.export import Deployed, export_model
from vreid_ext.engine.open import open_checkpoint

pytest.importorskip("onnxruntime", reason="needs the extra [export]")

RECIPES = [
    "synth_sta",
    "synth_stal",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("synth_avg", "synth_drsta", "synth_asta")),
]
# K = 3, because AITL warns below it: its farthest and nearest sample are then the same.
SMALL = [
    "model.backbone=resnet18", "input.height=64", "input.width=32", "input.frames=2", "batch.p=2",
    "batch.k=3", "train.epochs=1", "stages=[]",
]  # fmt: skip


@pytest.fixture(scope="module", params=RECIPES)
def run(request, tmp_path_factory, mars_root, ilids_root):
    root = ilids_root if "drsta" in request.param else mars_root
    folder = tmp_path_factory.mktemp(request.param)
    engine.train(engine.load_recipe(request.param, [f"dataset.root={root}", *SMALL]), folder, quiet=True)
    return folder


def inputs(model, clips, frames):
    pixels = torch.randint(0, 256, (clips, frames, 3, 64, 32), dtype=torch.uint8)
    return (
        (pixels, torch.rand(clips, frames, 14, 3)) if "joints" in getattr(model, "takes", ()) else (pixels,)
    )


@pytest.mark.filterwarnings("ignore:# The axis name")  # of torch's exporter
def test_onnx_gives_the_models_features(run, tmp_path):
    import onnx
    import onnxruntime

    told = export_model(run, tmp_path / "model.onnx")
    assert told["largest_difference"] <= 1e-4
    proto = onnx.load(tmp_path / "model.onnx")
    assert {node.domain for node in proto.graph.node} == {""}, "standard operators alone"
    about = json.loads({p.key: p.value for p in proto.metadata_props}["vreid_ext"])
    assert about["clips"] == "uint8 RGB (clips, frames, 3, 64, 32)"
    model = open_checkpoint(run)[0]
    given = inputs(model, 4, 6)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [node.name for node in session.get_inputs()]
    assert names == ["clips", "joints"][: len(given)]
    (feature,) = session.run(["feature"], {name: value.numpy() for name, value in zip(names, given)})
    with torch.no_grad():
        wanted = Deployed(model, len(given) == 2)(*given)
    assert about["dimensions"] == wanted.shape[1]
    torch.testing.assert_close(torch.from_numpy(feature), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max())


def test_the_exported_program_runs_without_the_package(run, tmp_path):
    told = export_model(run, format="torch")
    assert told["file"] == str(run / "model.pt2")
    model = open_checkpoint(run)[0]
    given = inputs(model, 1, 5)
    with torch.no_grad():
        torch.save([given, Deployed(model, len(given) == 2)(*given)], tmp_path / "case.pt")
    script = (
        "import sys, torch, torchvision\n"
        "given, wanted = torch.load(sys.argv[2])\n"
        "feature = torch.export.load(sys.argv[1]).module()(*given)\n"
        "torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))\n"
        "assert not any(name.startswith('vreid_ext') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, told["file"], tmp_path / "case.pt"], check=True)


@pytest.mark.filterwarnings("ignore:# The axis name")  # of torch's exporter
def test_openvino_gives_the_models_features(run, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs the extra [deploy]")
    if (recipe := open_checkpoint(run)[1]).model["name"] == "stal":  # OpenVINO rounds its boxes otherwise
        with pytest.raises(RuntimeError, match=r"^export: expected a relative difference"):
            export_model(run, tmp_path / "model.xml", format="openvino")
        assert list(tmp_path.iterdir()) == []
        return
    told = export_model(run, tmp_path / "model.xml", format="openvino")
    assert told["recipe"] == recipe.name
    assert told["largest_difference"] <= 1e-4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    network = openvino.Core().read_model(tmp_path / "model.xml")
    assert json.loads(network.get_rt_info("vreid_ext").value)["dimensions"] == told["dimensions"]
    model = open_checkpoint(run)[0]
    given = inputs(model, 4, 6)
    compiled = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    feature = torch.from_numpy(compiled([value.numpy() for value in given])[0])
    with torch.no_grad():
        wanted = Deployed(model, len(given) == 2)(*given)
    torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max())


@pytest.mark.parametrize("run", ["synth_sta"], indirect=True)
def test_another_suffix_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"^out: expected a file with the suffix .onnx, got .*model.pt2'"):
        export_model(run, tmp_path / "model.pt2")


@pytest.mark.parametrize("run", ["synth_sta"], indirect=True)
def test_a_file_that_differs_is_not_left_behind(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="export: expected a relative difference"):
        export_model(run, tmp_path / "model.pt2", format="torch")
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="format: expected one of onnx, torch, openvino, got 'tflite'"):
        export_model("no run", format="tflite")

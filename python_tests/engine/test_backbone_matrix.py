"""Every system with every kind of backbone: two training steps, evaluation, export."""

import json

import pytest

from vreid_ext import engine
from vreid_ext.engine.export import export_model

pytest.importorskip("timm")
pytest.importorskip("onnxruntime", reason="needs the extra [export]")

SYSTEMS = ("sta", "drsta", "stal", "asta")
BACKBONES = {
    "resnet50": ["model.backbone=resnet50"],
    "osnet": ["model.backbone=osnet_x0_25"],
    "timm_resnet": ["model.backbone=timm:resnet10t"],
    "timm_vit": [
        "model.backbone=timm:vit_tiny_patch16_224",
        "model.backbone_options={depth: 2, embed_dim: 48, num_heads: 2, final_norm: false}",
    ],
}
SMALL = [
    "model.weights=none", "input.height=64", "input.width=32", "input.frames=2", "batch.p=2", "batch.k=3",
    "train.epochs=1", "stages=[]", "optim.groups=[]", "eval.chunk=4", "eval.frames=[2]",
]  # fmt: skip
QUICK = {("sta", "timm_vit"), ("drsta", "osnet"), ("stal", "osnet"), ("asta", "timm_resnet")}
CELLS = [
    (system, backbone)
    for system in SYSTEMS
    for backbone in BACKBONES
    if (system, backbone) != ("stal", "timm_vit")
]


def recipe_of(system, backbone, root):
    options = [*SMALL, *BACKBONES[backbone], f"dataset.root={root}"]
    if system == "stal":
        options += ["model.split=null", "model.part_dim=8"]
    return engine.load_recipe(f"synth_{system}", options)


def trained(system, backbone, mars_root, ilids_root, folder):
    recipe = recipe_of(system, backbone, ilids_root if system == "drsta" else mars_root)
    figures = engine.train(recipe, folder, quiet=True)
    assert 0 < figures["rows"][0]["mAP"] <= 1
    kinds = [json.loads(line)["kind"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert kinds.count("step") >= 2
    return folder


@pytest.mark.parametrize(("system", "backbone"), sorted(QUICK))
def test_a_system_trains_and_is_evaluated(system, backbone, mars_root, ilids_root, tmp_path):
    trained(system, backbone, mars_root, ilids_root, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:# The axis name")  # of torch's exporter
@pytest.mark.parametrize(("system", "backbone"), CELLS)
def test_a_system_trains_is_evaluated_and_exported(system, backbone, mars_root, ilids_root, tmp_path):
    folder = trained(system, backbone, mars_root, ilids_root, tmp_path / "run")
    for form, suffix in (("torch", "pt2"), ("onnx", "onnx")):
        exported = export_model(folder, tmp_path / f"model.{suffix}", format=form)
        assert exported["largest_difference"] <= 1e-4


def test_stal_says_that_it_cannot_split_a_vit(mars_root, tmp_path):
    with pytest.raises(ValueError, match=r"^backbone: expected one that can be split .* got 'timm:vit"):
        engine.train(recipe_of("stal", "timm_vit", mars_root), tmp_path / "run", quiet=True)

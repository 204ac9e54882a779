"""`vreid init`: the survey of a folder, the proposed settings, and the recipe that trains."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vreid_ext import engine
from vreid_ext.data import DatasetError, PKBatchSampler, TrackletDataset
from vreid_ext.engine.propose import propose, write_proposal
from vreid_ext.engine.survey import Survey, survey


def tracklet(root, place, frames=4, size=(8, 16), grey=0):
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        Image.new("RGB", size, (grey,) * 3).save(folder / f"{frame:04}.png")


@pytest.fixture
def people(tmp_path):
    """Six persons, three tracklets each, in two cameras."""
    root = tmp_path / "people"
    for number, person in enumerate("abcdef"):
        for place in ("cam1/1", "cam1/2", "cam2/1"):
            tracklet(root, f"{person}/{place}", frames=5 + number, size=(40, 100), grey=number)
    return root


def test_the_survey_counts_what_the_recipe_depends_on(people):
    found = survey(people)
    assert found.options == {"split": 0.5}
    assert (found.heights, found.widths) == ((100, 100, 100), (40, 40, 40))
    assert (found.persons, found.per_person, found.cameras) == (3, 3, 2)
    assert found.matched == len(found.data.query) == 9
    assert found.lengths[0] >= 5
    assert found.notes == ()


@pytest.mark.parametrize("gpu", [False, True])
def test_the_recipe_has_the_proposed_settings(people, tmp_path, gpu):
    out = tmp_path / "people.yaml"
    found, proposal = write_proposal(people, out, gpu=gpu)
    recipe = engine.load_recipe(out)
    assert recipe.dataset.root == str(people)
    assert recipe.dataset.options == {"split": 0.5}
    assert (recipe.input.height, recipe.input.width, recipe.input.frames) == (128, 48, 4)
    assert (recipe.batch.p, recipe.batch.k) == (proposal.p, proposal.k) == (3, 2)
    assert recipe.model["backbone"] == ("resnet50" if gpu else "mobilenet_v2")
    assert recipe.model["pooling"] == "consensus"
    assert recipe.train.epochs == proposal.epochs
    text = out.read_text()
    assert 'root: "people"' in text  # relative to the recipe
    assert f"{found.matched} of 9 queries" in text
    assert all(len(line) <= 120 for line in text.splitlines() if str(tmp_path) not in line)
    assert "# P: of 3 training persons" in text


def test_a_recipe_in_another_folder_has_the_absolute_root(people, tmp_path):
    out = tmp_path / "recipes" / "first.yaml"
    write_proposal(people, out, gpu=False)
    assert yaml.safe_load(out.read_text())["dataset"]["root"] == str(people)
    assert engine.load_recipe(out).dataset.root == str(people)


def test_names_that_yaml_and_omegaconf_would_read_otherwise(people, tmp_path):
    root = people.rename(tmp_path / 'a "${b}": #c')
    write_proposal(root, tmp_path / "x.yaml", gpu=False)
    assert engine.load_recipe(tmp_path / "x.yaml").dataset.root == str(root)


def test_an_existing_file_is_kept(people, tmp_path):
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match=r"got .*mine.yaml, which exists; --force replaces it"):
        write_proposal(people, out)
    assert out.read_text() == "mine"
    write_proposal(people, out, force=True)
    assert engine.load_recipe(out).batch.p == 3


def test_few_persons_train_and_test(tmp_path):
    for person in "abc":
        for camera in ("cam1", "cam2"):
            tracklet(tmp_path / "set", f"{person}/{camera}/1")
    found, _ = write_proposal(tmp_path / "set", tmp_path / "set.yaml", gpu=False)
    assert found.options == {}
    assert found.persons == 3
    assert [note.partition(",")[0] for note in found.notes] == ["The same persons train and test"]
    assert engine.load_recipe(tmp_path / "set.yaml").batch.p == 3


def test_one_camera(tmp_path):
    for person in "abcd":
        for number in (1, 2):
            tracklet(tmp_path / "set", f"{person}/cam1/{number}", grey=number)
    found, _ = write_proposal(tmp_path / "set", tmp_path / "set.yaml", gpu=False)
    assert (found.cameras, found.matched) == (1, 4)
    assert "other tracklets of the same camera" in found.notes[0]
    assert "(one camera)" in (tmp_path / "set.yaml").read_text()


def test_short_tracklets_have_shorter_clips(tmp_path):
    for person in "abcd":
        for camera in ("cam1", "cam2"):
            tracklet(tmp_path / "set", f"{person}/{camera}/1", frames=1)
    _, proposal = write_proposal(tmp_path / "set", tmp_path / "set.yaml", gpu=False)
    assert (proposal.frames, proposal.pooling) == (1, "frame")
    assert "too short to weight" in (tmp_path / "set.yaml").read_text()


def test_a_single_person_is_an_error(tmp_path):
    for camera in ("cam1", "cam2"):
        tracklet(tmp_path, f"anna/{camera}/1")
    with pytest.raises(DatasetError, match="expected tracklets of at least two persons, got one person"):
        survey(tmp_path)


def test_persons_without_a_second_tracklet_are_an_error(tmp_path):
    for person in "abcd":
        tracklet(tmp_path, f"{person}/cam1/1")
    with pytest.raises(DatasetError, match=r"got 4 tracklets of as many persons in .*Name the persons"):
        survey(tmp_path)


def test_persons_in_one_of_several_cameras_are_an_error(tmp_path):
    for person, camera in zip("abcd", ("cam1", "cam1", "cam2", "cam2")):
        for number in (1, 2):
            tracklet(tmp_path, f"{person}/{camera}/{number}")
    with pytest.raises(DatasetError, match="expected queries with a match from another camera, got none"):
        survey(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": "recipe.txt"}, "out: expected a file that ends in .yaml, got recipe.txt"),
        ({"weights": "none.pt"}, "weights: expected imagenet, none or an existing file, got 'none.pt'"),
    ],
)
def test_wrong_arguments(people, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_proposal(people, **{"out": people.parent / "r.yaml", **arguments})
    assert not (people.parent / "r.yaml").exists()


def test_an_image_that_is_none(people, tmp_path):
    for image in people.glob("*/*/*/*.png"):
        image.write_bytes(b"text")
    with pytest.raises(DatasetError, match="cannot read the size of this image"):
        write_proposal(people, tmp_path / "r.yaml")


@given(
    tracklets=st.lists(st.integers(1, 9), min_size=2, max_size=40),
    length=st.integers(1, 30),
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    gpu=st.booleans(),
)
@settings(max_examples=50)
def test_every_proposal_can_be_trained(tracklets, length, size, gpu):
    pids = [pid for pid, count in enumerate(tracklets) for _ in range(count)]
    data = TrackletDataset("set", "set", pids, [], [], "")  # only the number of training tracklets counts
    lengths = (length,) * 4
    per_person = sorted(tracklets)[len(tracklets) // 2]
    found = Survey(data, {}, (size[0],) * 3, (size[1],) * 3, lengths, len(tracklets), per_person, 1, 1, ())
    proposal = propose(found, gpu=gpu)
    sampler = PKBatchSampler(pids, proposal.p, proposal.k)
    assert len(sampler) * proposal.epochs == proposal.steps >= 60
    assert proposal.p >= 2
    assert proposal.k >= 2
    assert proposal.height % 64 == 0
    assert proposal.width % 16 == 0
    assert 16 <= proposal.width <= proposal.height
    assert 1 <= proposal.frames <= length


def test_the_recipe_trains(tmp_path):
    """From rendered tracklets to figures."""
    from vreid_ext.data.synth import synthesize

    synthesize(tmp_path / "set", ids=8, cameras=2, tracklets=2, frames=4, size=(64, 32))
    write_proposal(tmp_path / "set", tmp_path / "set.yaml", weights="none", gpu=False)
    recipe = engine.load_recipe(tmp_path / "set.yaml", ["train.epochs=2", "schedule.warmup_epochs=1"])
    assert (recipe.dataset.name, recipe.input.height, recipe.input.width) == ("mars", 64, 32)
    result = engine.train(recipe, tmp_path / "run", quiet=True)
    assert result["rows"][0]["valid_queries"] == 8
    assert json.loads((tmp_path / "run" / "result.json").read_text())["rows"] is not None
    assert Path(tmp_path / "run" / "recipe.yaml").is_file()

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from vreid_ext.data.video.boxes import Track, read_boxes
from vreid_ext.data.video.extract import extract_tracklets, extract_videos, number_frames
from vreid_ext.data.video.people import PeopleDetector, group_windows, iou, link_boxes

cv2 = pytest.importorskip("cv2", reason="needs the extra [video]")

SHARED = Path(os.environ.get("VREID_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
VTEST = SHARED / "vtest"
needs_footage = pytest.mark.skipif(not VTEST.is_dir(), reason=f"no footage in {VTEST}")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Twelve frames of 96 x 64 pixels; the blue of frame f is 20 f, its right half is white."""
    path = tmp_path_factory.mktemp("footage") / "street scene.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for frame in range(12):
        picture = np.full((64, 96, 3), (20 * frame, 0, 0), dtype=np.uint8)
        picture[:, 48:] = 255
        writer.write(picture)
    writer.release()
    return path


def entry(number=0, person="A", frames=(0, 2, 4, 6), box=(2.0, 3.0, 20.0, 40.0), **changes):
    return {
        "id": number,
        "person": person,
        "frames": list(frames),
        "boxes": [list(box)] * len(frames),
    } | changes


def boxes_file(folder: Path, *entries, **content) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps({"tracklets": list(entries)} | content))
    return path


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_crops_show_the_boxes_of_their_frames(clip, tmp_path):
    boxes = boxes_file(tmp_path, entry(frames=(1, 5, 6, 11), box=(40.5, 3, 20, 30)))
    extract_tracklets(clip, tmp_path / "out", boxes=boxes)
    folder = tmp_path / "out/A/cam1/0000"
    assert sorted(p.name for p in folder.iterdir()) == [f"{f:06d}.jpg" for f in (1, 5, 6, 11)]
    for frame in (1, 5, 6, 11):
        crop = cv2.imread(str(folder / f"{frame:06d}.jpg")).astype(int)
        assert crop.shape == (30, 21, 3)
        assert abs(crop[:, :6, 0].mean() - 20 * frame) < 8
        assert crop[:, -6:].min() > 240


def test_a_box_over_the_edge_is_cut_to_the_picture(clip, tmp_path):
    boxes = boxes_file(tmp_path, entry(box=(-10.0, 50.0, 30.0, 100.0)))
    extract_tracklets(clip, tmp_path / "out", boxes=boxes)
    assert cv2.imread(str(tmp_path / "out/A/cam1/0000/000000.jpg")).shape == (14, 20, 3)


def test_split_by_time_gives_train_and_a_gallery_that_holds_the_queries(clip, tmp_path):
    boxes = boxes_file(
        tmp_path,
        entry(0, "A", (0, 1, 2, 3)),
        entry(1, "B", (0, 1, 2, 5)),
        entry(2, "A", (2, 3, 4, 6)),
        entry(3, "B", (6, 7, 8, 9)),
    )
    done = extract_tracklets(clip, tmp_path / "out", boxes=boxes, split=6)
    folders = {p.parent.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.jpg")}
    test = {"A/cam1/0002", "B/cam1/0003"}
    assert folders == {"train/A/cam1/0000", "train/B/cam1/0001"} | {
        f"{part}/{name}" for part in ("query", "gallery") for name in test
    }
    assert (done.train, done.crops) == (2, 16)
    assert "2 train, 2 test" in done.summary()


def test_the_folder_is_read_by_tracklet_folder_and_only_the_query_itself_is_junk(clip, tmp_path):
    from vreid_ext.data import build_dataset

    boxes = boxes_file(tmp_path, *(entry(i, "AB"[i % 2], range(2 * i, 2 * i + 4)) for i in range(5)))
    extract_tracklets(clip, tmp_path / "out", boxes=boxes, split=5)
    dataset = build_dataset("tracklet_folder", tmp_path / "out")
    assert [len(t) for t in (dataset.train, dataset.query, dataset.gallery)] == [1, 4, 4]
    for query in dataset.query:
        junk = [t.name for t in dataset.gallery if (t.pid, t.camid) == (query.pid, query.camid)]
        assert junk == [query.name.replace("query", "gallery", 1)]


def test_start_stop_and_min_frames_choose_tracks(clip, tmp_path):
    boxes = boxes_file(tmp_path, entry(0, frames=range(12)), entry(1, frames=(0, 1, 2, 5)))
    done = extract_tracklets(clip, tmp_path / "out", boxes=boxes, start=2, stop=9, min_frames=3)
    assert [t.frames for t in done.tracks] == [tuple(range(2, 9))]
    assert done.too_short == 1


def test_without_names_each_tracklet_is_its_own_person_and_says_so(clip, tmp_path):
    boxes = boxes_file(tmp_path, entry(3, None), entry(7, None))
    done = extract_tracklets(clip, tmp_path / "out", boxes=boxes, camera="cam2")
    assert {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").glob("*/*/*")} == {
        "cam2-unknown0003/cam2/0003",
        "cam2-unknown0007/cam2/0007",
    }
    assert "2 of unknown identity" in done.summary()


@pytest.fixture
def videos(clip, tmp_path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("gate.avi", "yard.AVI", "notes.txt"):
        (folder / name).write_bytes(clip.read_bytes())
    return folder


def test_a_folder_of_videos_is_a_camera_each_and_a_name_in_two_of_them_one_person(videos, tmp_path):
    named = tmp_path / "named"
    named.mkdir()
    for camera in ("gate", "yard"):
        boxes_file(named, entry(0, "A"), entry(1, None)).rename(named / f"tracklets-{camera}.json")
    done = extract_videos(videos, tmp_path / "out", boxes=named)
    assert {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").glob("*/*/*")} == {
        "A/gate/0000",
        "A/yard/0000",
        "gate-unknown0001/gate/0001",
        "yard-unknown0001/yard/0001",
    }
    assert done.summary().startswith("4 tracklets (1 persons, 2 of unknown identity")
    assert {p.name for p in (tmp_path / "out").glob("*.json")} == {
        "tracklets-gate.json",
        "tracklets-yard.json",
    }
    extract_videos(videos, tmp_path / "again", boxes=tmp_path / "out")
    assert tree(tmp_path / "again") == tree(tmp_path / "out")


def test_a_video_without_people_is_left_out_and_a_folder_without_is_an_error(videos, tmp_path):
    boxes_file(tmp_path, entry(0)).rename(tmp_path / "tracklets-gate.json")
    boxes_file(tmp_path, entry(0, frames=(1, 2))).rename(tmp_path / "tracklets-yard.json")
    with pytest.warns(
        UserWarning,
        match="expected a track of at least 4 boxes .* got none in .*tracklets-yard.json; skipped",
    ):
        extract_videos(videos, tmp_path / "out", boxes=tmp_path)
    assert (tmp_path / "out/A/gate/0000").is_dir()
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(ValueError, match="got none in all 2"),
    ):
        extract_videos(videos, tmp_path / "none", boxes=tmp_path, min_frames=9)
    assert not (tmp_path / "none").exists()


def test_one_bad_video_leaves_the_others_their_work(clip, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("gate.avi", "yard.ts", "road.wmv"):
        write_video(videos / name, code={"yard.ts": "mp2v", "road.wmv": "WMV2"}.get(name, "MJPG"))
    (videos / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    (videos / "code.ts").write_text("export const x = 1;")
    (videos / "._gate.avi").write_bytes(b"\0\5\x16\7" + bytes(100))
    (videos / "unlabelled.avi").write_bytes(clip.read_bytes())
    (videos / "other.avi").write_bytes(clip.read_bytes())
    named = tmp_path / "named"
    named.mkdir()
    for camera in ("gate", "yard", "road", "broken", "code", "other"):
        size = {"size": [1, 1]} if camera == "other" else {}
        boxes_file(named, entry(), **size).rename(named / f"tracklets-{camera}.json")
    with pytest.warns(UserWarning, match="skipped") as warned:
        done = extract_videos(videos, tmp_path / "out", boxes=named)
    assert {path.name for path in (tmp_path / "out/A").iterdir()} == {"gate", "yard", "road"}
    left_out = {str(each.message).partition(":")[0] for each in warned if "skipped" in str(each.message)}
    assert left_out == {"broken.mp4", "code.ts", "unlabelled.avi", "other.avi"}
    notes = "\n".join(done.notes)
    assert all(f"{name}: " in notes for name in left_out)
    assert "skipped 1 entries that are not videos: ._gate.avi" in notes


def test_a_malformed_boxes_file_is_said_before_any_video_is_read(videos, tmp_path):
    boxes_file(tmp_path, entry()).rename(tmp_path / "tracklets-gate.json")
    (tmp_path / "tracklets-yard.json").write_text("{")
    seen = []
    with pytest.raises(ValueError, match=r"expected a JSON file, got .*tracklets-yard\.json"):
        extract_videos(videos, tmp_path / "out", boxes=tmp_path, progress=lambda *step: seen.append(step))
    assert not seen
    with pytest.raises(ValueError, match=r"stride: expected .*, got 0"):
        extract_videos(videos, tmp_path / "out", stride=0)


def test_a_name_in_nfc_and_in_nfd_is_one_person(videos, tmp_path):
    for camera, form in (("gate", "NFC"), ("yard", "NFD")):
        file = boxes_file(tmp_path, entry(person=unicodedata.normalize(form, "josé")))
        file.rename(tmp_path / f"tracklets-{camera}.json")
    done = extract_videos(videos, tmp_path / "out", boxes=tmp_path)
    assert done.summary().startswith("2 tracklets (1 persons)")
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 1


def test_tracks_and_extractions_print_short(clip, tmp_path):
    done = extract_tracklets(clip, tmp_path / "out", boxes=boxes_file(tmp_path, entry(frames=range(12))))
    assert repr(done.tracks) == "(Track(0, 'A', 12 boxes on frames 0 to 11),)"
    assert "tracks=" not in repr(done)
    assert str(done) == done.summary()


def test_a_folder_without_videos_or_with_two_of_one_name_is_refused(videos, tmp_path):
    (videos / "gate.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="got two videos named gate"):
        extract_videos(videos, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected a folder with videos"):
        extract_videos(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_written_can_be_extracted_again_byte_for_byte(clip, tmp_path):
    boxes = boxes_file(tmp_path, entry(0, "A"), entry(1, None, (3, 4, 5, 8), (1.5, 2.5, 9, 9)))
    extract_tracklets(clip, tmp_path / "a", boxes=boxes)
    extract_tracklets(clip, tmp_path / "b", boxes=tmp_path / "a/tracklets.json")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("entries", "content", "says"),
    [
        ([], {"tracklets": 3}, "without a list 'tracklets'"),
        ([entry()], {"sha256": "0" * 64, "video": "other.avi"}, r"another video \(other.avi\)"),
        ([entry()], {"size": [768, 576]}, r"size \[96, 64\], got .* with size \[768, 576\]"),
        ([entry(), entry()], {}, "two tracklets with the same id"),
        ([{"id": 0}], {}, "expected id, person, frames and boxes"),
        ([entry("0")], {}, "id: expected .*, got '0'"),
        ([entry(person="../A")], {}, "person: expected .*, got '../A'"),
        ([entry(person="..")], {}, "person: expected .*, got '..'"),
        ([entry(person="a\0b")], {}, "person: expected .*, got 'a"),
        ([entry(person="\ud800")], {}, "person: expected .*, got "),
        ([entry(person="x" * 256)], {}, "person: expected .*, got 'xxx"),
        ([entry(frames=(0, 4, 2, 6))], {}, "in ascending order"),
        ([entry(frames=(0, 2, 4, 12))], {}, "expected frame numbers below 12 .*, got 12 in "),
        ([entry(boxes=[[0, 0, 5, 5]])], {}, "boxes: expected one box for each of its 4 frames"),
        ([entry(box=(0, 0, 5))], {}, "box: expected .x, y, w, h."),
        ([entry(box=(0, 0, 5, float("nan")))], {}, "box: expected .x, y, w, h."),
        ([entry(box=(0, 0, 10**400, 5))], {}, "box: expected .x, y, w, h."),
        ([entry(box=(0, 0, 0, 5))], {}, "box: expected positive width and height"),
        ([entry(box=(96, 0, 5, 5))], {}, "box: expected overlap with the frame of 96 x 64"),
        ([entry(frames=(0, 2, 4))], {}, "expected a track of at least 4 boxes"),
    ],
)
def test_bad_boxes_files_are_named_before_anything_is_written(clip, tmp_path, entries, content, says):
    boxes = boxes_file(tmp_path, *entries, **content)
    with pytest.raises(ValueError, match=says) as raised:
        extract_tracklets(clip, tmp_path / "out", boxes=boxes)
    assert str(boxes) in str(raised.value)
    assert list(tmp_path.iterdir()) == [boxes]


def test_a_boxes_file_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="expected a JSON file, got "):
        read_boxes(path)
    with pytest.raises(ValueError, match="expected a JSON file, got "):
        read_boxes(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": -1}, "start: expected .*got -1"),
        ({"start": 4, "stop": 4}, "stop: expected .*got 4"),
        ({"stride": 0}, "stride: expected .*got 0"),
        ({"min_frames": 0}, "min_frames: expected .*got 0"),
        ({"camera": "a/b"}, "camera: expected .*got 'a/b'"),
        ({"split": 0}, "split: expected .*, got no training tracklet with frame 0"),
        ({"split": 12}, "split: expected .*, got no test tracklet with frame 12"),
    ],
)
def test_bad_options(clip, tmp_path, options, says):
    boxes = boxes_file(tmp_path, entry())
    with pytest.raises(ValueError, match=says):
        extract_tracklets(clip, tmp_path / "out", boxes=boxes, **options)
    assert not (tmp_path / "out").exists()


def test_a_video_that_does_not_decode(tmp_path):
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"RIFF\x00\x00\x00\x00AVI LIST" + bytes(2000))
    with pytest.raises(
        ValueError, match=r"expected a video that OpenCV .* can decode, got no frame from .*broken.avi"
    ):
        extract_tracklets(broken, tmp_path / "out")
    with pytest.raises(ValueError, match="expected an existing file or folder of images, got "):
        extract_tracklets(tmp_path / "absent.avi", tmp_path / "out")


def test_an_out_folder_with_results_is_left_alone_and_an_empty_one_is_used(clip, tmp_path):
    boxes, out = boxes_file(tmp_path, entry()), tmp_path / "out"
    out.mkdir()
    extract_tracklets(clip, out, boxes=boxes)
    before = tree(out)
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        extract_tracklets(clip, out, boxes=boxes)
    assert tree(out) == before


def test_an_interrupted_run_leaves_no_folder(clip, tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_tracklets(
            clip, tmp_path / "runs/out", boxes=boxes_file(tmp_path, entry()), progress=interrupt
        )
    assert not (tmp_path / "runs").exists()


def test_progress_ends_complete(clip, tmp_path):
    seen = []
    boxes = boxes_file(tmp_path, entry(frames=(2, 4, 6, 8)))
    extract_tracklets(clip, tmp_path / "out", boxes=boxes, progress=lambda *step: seen.append(step))
    assert seen == [(i, 7) for i in range(1, 8)]


@pytest.mark.parametrize(
    ("code", "says"),
    [("None", r"requires OpenCV: pip install 'vreid-ext\[video\]'"), ("new", "has no people detector")],
)
def test_missing_opencv_is_said_with_the_extra(clip, tmp_path, monkeypatch, code, says):
    stand_in = None if code == "None" else type(sys)("cv2")
    if stand_in is not None:
        stand_in.__version__ = "5.0.0"
    monkeypatch.setitem(sys.modules, "cv2", stand_in)
    with pytest.raises(ImportError, match=says):
        extract_tracklets(clip, tmp_path / "out")


def test_labelled_boxes_need_no_detector(clip, tmp_path, monkeypatch):
    boxes = boxes_file(tmp_path, entry(frames=(0, 2, 4, 6)))
    extract_tracklets(clip, tmp_path / "with", boxes=boxes)
    for name in ("HOGDescriptor", "HOGDescriptor_getDefaultPeopleDetector"):  # OpenCV 5 has neither
        monkeypatch.delattr(cv2, name)
    assert extract_tracklets(clip, tmp_path / "without", boxes=boxes).crops == 4
    files = [
        sorted(p.relative_to(tmp_path / w) for p in (tmp_path / w).rglob("*")) for w in ("with", "without")
    ]
    assert files[0] == files[1]
    with pytest.raises(ImportError, match=r"has no people detector.*--boxes"):
        extract_tracklets(clip, tmp_path / "detected")


def test_video_is_imported_without_opencv():
    code = "import sys; sys.modules['cv2'] = None; import vreid_ext.data.video.extract"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plain_picture_has_nobody_and_a_small_one_is_no_error():
    detector = PeopleDetector(cv2)
    for size in ((240, 320), (30, 20)):
        assert detector(np.full((*size, 3), 128, dtype=np.uint8)).shape == (0, 4)


def test_iou_by_hand():
    a = np.array([[0.0, 0.0, 4.0, 4.0]])
    b = np.array([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 4.0, 4.0], [9.0, 9.0, 1.0, 1.0]])
    np.testing.assert_allclose(iou(a, b), [[1, 8 / 24, 0]])


def test_windows_group_in_any_order_and_lone_ones_go():
    windows = np.array(
        [[0, 0, 10, 20], [1, 0, 10, 20], [50, 0, 10, 20], [30, 5, 10, 20], [30, 5, 10, 20]], float
    )
    weights = np.array([3.0, 1.0, 9.0, 1.0, 0.5])
    expected = [[0.25, 0, 10, 20], [30, 5, 10, 20]]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        np.testing.assert_array_equal(group_windows(windows[order], weights[order]), expected)


def test_linking_follows_two_people_who_pass_each_other():
    detections = {f: np.array([[4.0 * f, 0, 20, 40], [200 - 4.0 * f, 0, 20, 40]]) for f in range(0, 60, 2)}
    tracks = link_boxes(detections)
    assert len(tracks) == 2
    assert [b[0] for b in tracks[0].boxes] == [4.0 * f for f in range(0, 60, 2)]


@pytest.mark.parametrize(("gap", "count"), [(3, 1), (4, 2)])
def test_linking_bridges_gaps_up_to_the_limit(gap, count):
    here = np.array([[5.0, 5, 20, 40]])
    seen = [here] * 3 + [np.empty((0, 4))] * gap + [here] * 3
    tracks = link_boxes({2 * i: b for i, b in enumerate(seen)}, max_gap=3)
    assert len(tracks) == count
    assert sum(len(t.frames) for t in tracks) == 6


def write_video(path: Path, count: int = 20, code: str = "MJPG", size: tuple[int, int] = (96, 64)) -> Path:
    """Frames whose left part tells their number by its blue, 12 a step."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, size)
    assert writer.isOpened()
    noise = np.random.default_rng(0)
    for frame in range(count):
        picture = np.full((size[1], size[0], 3), (12 * frame, 0, 0), dtype=np.uint8)
        picture[:, size[0] // 2 :] = noise.integers(0, 256, (size[1], size[0] // 2, 3))
        writer.write(picture)
    writer.release()
    return path


def jpegs(content: bytes) -> list[tuple[int, int]]:
    """First byte and end of every JPEG in a video."""
    starts = [match.start() for match in re.finditer(b"\xff\xd8\xff", content)]
    return [(start, content.index(b"\xff\xd9", start) + 2) for start in starts]


def damaged(path: Path, *frames: int) -> Path:
    """The frames' JPEGs set to zero."""
    content = bytearray(path.read_bytes())
    places = jpegs(bytes(content))
    for frame in frames:
        start, end = places[frame]
        content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return path


def numbers_in(folder: Path) -> dict[int, int]:
    """Frame number in a crop's name to the one its blue tells."""
    return {int(p.stem): round(cv2.imread(str(p))[:, :30, 0].mean() / 12) for p in folder.iterdir()}


@pytest.mark.parametrize("lost", [(8,), (0,), (19,), (3, 4, 5), (0, 1, 9, 18, 19), tuple(range(1, 19))])
def test_damaged_frames_are_passed_over_and_counted(tmp_path, lost):
    video = damaged(write_video(tmp_path / "gate.avi"), *lost)
    kept = [frame for frame in range(20) if frame not in lost]
    boxes = boxes_file(tmp_path, entry(frames=range(kept[-1] + 1), box=(2, 2, 70, 60)))
    done = extract_tracklets(video, tmp_path / "out", boxes=boxes, min_frames=2)
    assert numbers_in(tmp_path / "out/A/cam1/0000") == {frame: frame for frame in kept}
    assert done.crops == len(kept)
    inside = [frame for frame in lost if frame < kept[-1]]
    notes = "\n".join(done.notes)
    assert (f"{len(inside)} of {kept[-1] + 1} frames are missing or cannot be decoded" in notes) == bool(
        inside
    )
    assert ("header states 20 frames, the file has" in notes) == (19 in lost)
    assert (f"{len(inside)} boxes are on frames that cannot be decoded" in notes) == bool(inside)
    assert all(note in done.summary() for note in done.notes)


@pytest.mark.parametrize(("name", "code"), [("gate.mkv", "MJPG"), ("gate.wmv", "WMV2"), ("gate.flv", "FLV1")])
@pytest.mark.parametrize("fill", [b"\0", b"noise"])
def test_frames_that_a_container_drops_in_silence_are_counted_by_time(tmp_path, name, code, fill):
    video = write_video(tmp_path / name, code=code)
    content = bytearray(video.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = (fill * 3000)[:3000]
    video.write_bytes(content)
    boxes = boxes_file(tmp_path, entry(frames=range(20), box=(2, 2, 70, 60)))
    done = extract_tracklets(video, tmp_path / "out", boxes=boxes)
    found = numbers_in(tmp_path / "out/A/cam1/0000")
    assert 15 <= len(found) == done.crops < 20
    # A damaged frame may show an earlier one, and lossy colour is one step off.
    assert all(abs(number - told) <= 1 for number, told in found.items())
    assert f"{20 - len(found)} of 20 frames are missing or cannot be decoded" in done.summary()


@pytest.mark.parametrize("announced", [3, 50, 2**31 - 1, 0])
def test_a_wrong_count_in_the_header_is_said(tmp_path, announced):
    video = write_video(tmp_path / "gate.avi")
    content = bytearray(video.read_bytes())
    for header, place in ((b"avih", 24), (b"strh", 40)):
        at = content.index(header) + place
        assert int.from_bytes(content[at : at + 4], "little") == 20
        content[at : at + 4] = announced.to_bytes(4, "little")
    index = content.rindex(b"idx1")  # from which the count would be told
    content[index : index + 4] = b"JUNK"
    video.write_bytes(content)
    boxes = boxes_file(tmp_path, entry(frames=range(20), box=(2, 2, 70, 60)))
    done = extract_tracklets(video, tmp_path / "out", boxes=boxes)
    assert numbers_in(tmp_path / "out/A/cam1/0000") == {frame: frame for frame in range(20)}
    assert ("frames, the file has 20" in done.summary()) == (announced > 0)


def uneven(path: Path, times: list[int]) -> Path:
    """The MJPG frames of a Matroska file at other times, in ms from the start of their cluster."""
    content = bytearray(path.read_bytes())
    for (start, _), time in zip(jpegs(bytes(content)), times, strict=True):
        assert content[start - 4] == 0x81  # track 1, two bytes of time, flags
        content[start - 3 : start - 1] = time.to_bytes(2, "big")
    path.write_bytes(content)
    return path


def test_frames_uneven_in_time_are_numbered_in_order_and_linked_by_time(tmp_path, monkeypatch):
    video = uneven(write_video(tmp_path / "gate.mkv", 12), [0, 20] * 6)  # clusters begin every 200 ms

    class Walker:
        """Finds a person who moves 75 pixels a second: 1.5 and 13.5 pixels from frame to frame."""

        def __init__(self, _):
            self.seconds = iter([0.2 * (frame // 2) + 0.02 * (frame % 2) for frame in range(12)])

        def __call__(self, _):
            return np.array([[75 * next(self.seconds), 5, 20, 40]])

    monkeypatch.setattr("vreid_ext.data.video.extract.PeopleDetector", Walker)
    done = extract_tracklets(video, tmp_path / "out", stride=1)
    assert [track.frames for track in done.tracks] == [tuple(range(12))]
    assert "not evenly spaced in time" in done.summary()
    boxes = boxes_file(tmp_path, entry(frames=range(12), box=(2, 2, 70, 60)))
    extract_tracklets(video, tmp_path / "labelled", boxes=boxes)
    assert numbers_in(tmp_path / "labelled/A/cam1/0000") == {frame: frame for frame in range(12)}


def test_a_stream_that_changes_size_keeps_the_first(tmp_path):
    small, large = (
        write_video(tmp_path / f"{name}.mjpeg", 6, size=size)
        for name, size in (("small", (96, 64)), ("large", (192, 128)))
    )
    video = tmp_path / "gate.mjpeg"
    video.write_bytes(small.read_bytes() + large.read_bytes())
    boxes = boxes_file(tmp_path, entry(frames=range(12), box=(2, 2, 70, 60)))
    extract_tracklets(video, tmp_path / "out", boxes=boxes)
    crops = [cv2.imread(str(p)) for p in sorted((tmp_path / "out/A/cam1/0000").iterdir())]
    assert [crop.shape for crop in crops] == [(60, 70, 3)] * 12
    assert [round(crop[:, :30, 0].mean() / 12) for crop in crops] == [*range(6), *range(6)]


def test_frames_of_another_size_are_resized_and_counted(clip, tmp_path, monkeypatch):
    """OpenCV's own backend resizes by itself; those of some cameras do not."""
    pictures = [np.full((64, 96, 3), 9, np.uint8)] * 3 + [np.full((32, 48, 3), 99, np.uint8)] * 2
    stream = [(0, n / 10, picture) for n, picture in enumerate(pictures)]
    monkeypatch.setattr("vreid_ext.data.video.extract._pictures", lambda *_: iter(stream))
    boxes = boxes_file(tmp_path, entry(frames=range(5), box=(50, 5, 40, 50)))
    done = extract_tracklets(clip, tmp_path / "out", boxes=boxes)
    crops = [cv2.imread(str(p)) for p in sorted((tmp_path / "out/A/cam1/0000").iterdir())]
    assert [crop.shape for crop in crops] == [(50, 40, 3)] * 5
    assert [round(crop.mean()) for crop in crops] == [9, 9, 9, 99, 99]
    assert "2 frames were resized, because they differ in size from the first frame" in done.summary()


def test_frames_are_numbered_by_time_where_it_is_even():
    assert number_frames([0, 0, 1, 0], [0, 0.1, 0.3, 0.4], 10) == ([0, 1, 3, 4], True)
    assert number_frames([0, 0, 0, 0], [5, 5.1, 5.4, 5.5], 10) == ([0, 1, 4, 5], True)
    assert number_frames([2, 0, 0], [0.2, 0.3, 0.4], 10) == ([2, 3, 4], True)
    ntsc = [round(n * 1001 / 30000, 3) for n in range(3000)]
    assert number_frames([0] * 3000, ntsc, 30000 / 1001) == (list(range(3000)), True)
    assert number_frames([0, 0, 2, 0], [0, 0.13, 0.3, 0.34], 10) == ([0, 1, 4, 5], False)
    assert number_frames([0, 0, 0], [0, 0.033, 0.066], 1000) == ([0, 1, 2], False)  # the unit of a clock
    assert number_frames([0, 0, 0], [0, 0, 0], 10) == ([0, 1, 2], False)
    assert number_frames([1], [0], 0) == ([1], True)


@needs_footage
def test_labelled_footage_becomes_the_documented_folder(tmp_path):
    done = extract_tracklets(VTEST / "vtest.avi", tmp_path / "o", boxes=VTEST / "tracklets.json", split=400)
    assert (len(done.tracks), len({t.person for t in done.tracks}), done.crops) == (63, 9, 1452)
    assert done.too_short == 0


@needs_footage
def test_detection_finds_the_labelled_people_and_keeps_them_apart(tmp_path):
    """Five seconds are enough here; `docs/real_footage.md` has the figures of the whole clip."""
    labelled = [
        (frame, box, track.person)
        for track in read_boxes(VTEST / "tracklets.json")
        for frame, box in zip(track.frames, track.boxes)
        if frame < 50
    ]
    tracks = extract_tracklets(VTEST / "vtest.avi", tmp_path / "o", stop=50).tracks
    persons: dict[int, list[str | None]] = {}
    for frame, box, person in labelled:
        if (track := owner(frame, box, tracks)) is not None:
            persons.setdefault(track, []).append(person)
    covered = sum(map(len, persons.values()))
    assert covered / len(labelled) > 0.9
    assert sum(max(map(found.count, found)) for found in persons.values()) / covered > 0.9


def owner(frame: int, box: tuple[float, ...], tracks: tuple[Track, ...]) -> int | None:
    """The track whose box on that frame overlaps `box` best, by half or more."""
    here = [(t.id, t.boxes[t.frames.index(frame)]) for t in tracks if frame in t.frames]
    overlap = iou(np.array([box]), np.array([b for _, b in here]).reshape(-1, 4))[0]
    return here[overlap.argmax()][0] if overlap.max(initial=0) >= 0.5 else None

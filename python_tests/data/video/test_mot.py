"""MOT text, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vreid_ext.data.video.boxes import Track, read_boxes
from vreid_ext.data.video.extract import extract_tracklets, extract_videos, is_image_folder
from vreid_ext.data.video.mot import read_mot, write_mot

cv2 = pytest.importorskip("cv2", reason="needs the extra [video]")
import numpy as np  # noqa: E402


def text(folder, content, name="boxes.txt"):
    path = folder / name
    path.write_text(content)
    return path


def test_lines_become_tracks(tmp_path):
    path = text(tmp_path, "3,2,10,20,30.5,40,1,-1,-1,-1\n1,2,11,21,30,40\n\n 2, 1.0 ,0,0,5,5,0.9\n")
    assert read_mot(path) == (
        [
            Track(1, (1,), ((0.0, 0.0, 5.0, 5.0),)),
            Track(2, (0, 2), ((11.0, 21.0, 30.0, 40.0), (10.0, 20.0, 30.5, 40.0))),
        ],
        0,
    )


def test_lines_that_the_challenge_leaves_out_are_counted(tmp_path):
    lines = ["1,1,0,0,5,5,1,1,0.9", "1,2,0,0,5,5,0,1,0.9", "1,3,0,0,5,5,1,7,0.9", "2,1,0,0,5,5,0,-1,-1,-1"]
    found = read_mot(text(tmp_path, "\n".join(lines)))
    assert ([track.id for track in found.tracks], found.left_out) == ([1], 3)
    # Ten fields have no class: X, Y and Z of MOT15.
    assert read_mot(text(tmp_path, "1,1,0,0,5,5,1,7,0.9,2")).left_out == 0


numbers = st.floats(-1e6, 1e6, allow_nan=False)
sides = st.floats(0.01, 1e6)
tracks = st.lists(
    st.dictionaries(st.integers(0, 50), st.tuples(numbers, numbers, sides, sides), min_size=1), min_size=1
)


@given(tracks)
def test_what_is_written_is_read(tmp_path_factory, boxes):
    path = tmp_path_factory.mktemp("mot") / "tracks.txt"
    written = [
        Track(3 * n, tuple(sorted(each)), tuple(each[f] for f in sorted(each)))
        for n, each in enumerate(boxes)
    ]
    write_mot(path, written)
    assert read_mot(path) == (written, 0)
    rows = [[float(part) for part in line.split(",")] for line in path.read_text().splitlines()]
    assert rows == sorted(rows)
    assert min(row[0] for row in rows) >= 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", r"expected at least one track, got none"),
        ("1,1,0,0,5,5,0\n", r"expected at least one track, got none"),
        ("1,1,0,0,5\n", r"line 1: expected 6 to 10 numbers"),
        ("1,1,0,0,5,5,1,1,1,1,1\n", r"line 1: expected 6 to 10 numbers"),
        ("1,1,0,0,5,5\n1;1;0;0;5;5\n", r"line 2: expected 6 to 10 numbers frame,id,x,y,w,h,..., got '1;1"),
        ("1,1,0,0,nan,5\n", r"line 1: expected 6 to 10 numbers"),
        ("1,1,0,0,1e999,5\n", r"line 1: expected 6 to 10 numbers"),
        ("0,1,0,0,5,5\n", r"line 1: frame: expected an integer >= 1, got 0"),
        ("1.5,1,0,0,5,5\n", r"line 1: frame: expected an integer >= 1, got 1.5"),
        ("1,-1,0,0,5,5\n", r"line 1: id: expected an integer >= 0, got -1; a detection without track"),
        ("1,1e300,0,0,5,5\n", r"line 1: id: expected an integer"),
        ("1,1,0,0,5,-5\n", r"line 1: box: expected positive width and height"),
        ("1,1,96,0,5,5\n", r"line 1: box: expected overlap with the frame of 96 x 64 pixels"),
        ("1,1,0,0,5,5\n1,1,0,0,6,6\n", r"line 2: expected one box per frame and id, got a second one"),
        (b"\xff\xfe1", r"expected MOT text, got .* cannot be read"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, says):
    path = tmp_path / "bad.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"^boxes: .*{says}") as error:
        read_mot(path, size=(96, 64))
    assert "\n" not in str(error.value)


@pytest.fixture
def frames(tmp_path):
    """A folder with the frames of a video: eleven images of 96 x 64 pixels and one damaged file."""
    folder = tmp_path / "img1"
    folder.mkdir()
    for number in range(1, 13):
        picture = np.full((64, 96, 3), (20 * number, 0, 0), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    (folder / "5.png").write_bytes(b"damaged")
    return folder


BOXES = "\n".join(f"{frame},4,{frame},3,20,40,1,-1,-1,-1" for frame in range(1, 13))


def test_tracklets_are_cut_out_of_a_folder_of_images(frames, tmp_path):
    assert is_image_folder(frames)
    done = extract_tracklets(frames, tmp_path / "out", boxes=text(tmp_path, BOXES))
    assert done.crops == 11
    assert done.notes == ("img1: 1 of 12 frames are missing or cannot be decoded",
                          "img1: 1 boxes are on frames that cannot be decoded")  # fmt: skip
    folder = tmp_path / "out/cam1-unknown0004/cam1/0004"
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{frame:06d}.jpg" for frame in range(12) if frame != 4]
    for frame in (0, 11):  # image n shows the blue 20 n
        assert cv2.imread(str(folder / f"{frame:06d}.jpg")).mean((0, 1))[0] == pytest.approx(
            20 * (frame + 1), abs=3
        )
    written = (tmp_path / "out/tracklets.txt").read_text().splitlines()
    assert written == [line for line in BOXES.splitlines() if not line.startswith("5,")]
    assert read_boxes(tmp_path / "out/tracklets.json")[0].frames == (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
    again = extract_tracklets(frames, tmp_path / "again", boxes=tmp_path / "out/tracklets.txt")
    assert again.tracks == done.tracks
    from vreid_ext.data import build_dataset

    assert build_dataset("tracklet_folder", tmp_path / "again").ignored == []


def test_people_are_detected_in_a_folder_of_images(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "vreid_ext.data.video.people.PeopleDetector.__call__", lambda *_: np.array([[10.0, 5, 20, 50]])
    )
    done = extract_tracklets(frames, tmp_path / "out", stride=1)
    assert [len(track.frames) for track in done.tracks] == [11]
    rows = (tmp_path / "out/tracklets.txt").read_text().splitlines()
    assert rows[0] == "1,0,10,5,20,50,1,-1,-1,-1"


def test_boxes_beyond_the_video_or_left_out_are_said(frames, tmp_path):
    with pytest.raises(
        ValueError, match=r"^boxes: expected frame numbers below 12 .*counted from 0\), got 19"
    ):
        extract_tracklets(frames, tmp_path / "out", boxes=text(tmp_path, BOXES + "\n20,4,1,1,5,5"))
    done = extract_tracklets(frames, tmp_path / "out", boxes=text(tmp_path, BOXES + "\n1,5,1,1,5,5,0"))
    assert "boxes.txt: 1 boxes are left out (confidence 0, or no pedestrian)" in done.notes


def test_a_folder_of_videos_takes_mot_text(tmp_path):
    (tmp_path / "videos").mkdir()
    writer = cv2.VideoWriter(str(tmp_path / "videos/gate.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for _ in range(12):
        writer.write(np.zeros((64, 96, 3), np.uint8))
    writer.release()
    assert not is_image_folder(tmp_path / "videos")
    (tmp_path / "boxes").mkdir()
    text(tmp_path / "boxes", BOXES, "tracklets-gate.txt")
    done = extract_videos(tmp_path / "videos", tmp_path / "out", boxes=tmp_path / "boxes")
    assert done.crops == 12
    assert (tmp_path / "out/tracklets-gate.txt").read_text() == BOXES + "\n"
    # Both files are there now; names of persons are only in JSON.
    again = extract_videos(tmp_path / "videos", tmp_path / "again", boxes=tmp_path / "out")
    assert again.tracks == done.tracks

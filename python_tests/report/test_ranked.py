"""Lists agree with the figures: the same order, the same matches, junk in its place without a rank."""

import pytest
import torch

from vreid_ext import metrics
from vreid_ext.data import Tracklet, TrackletDataset
from vreid_ext.engine import load_recipe
from vreid_ext.engine.comparison import ids
from vreid_ext.engine.evaluate import Evaluated
from vreid_ext.report.ranked import ranked_lists


def evaluated(gallery, *, junk=True, itself=-1):
    """One query of person 1, camera 1 at 0, and the gallery (pid, camid) at growing distances from it."""
    angles = torch.linspace(0.1, 1.5, len(gallery)).double()
    features = torch.stack([angles.cos(), angles.sin()], 1)
    tracklets = [Tracklet((f"{row}.jpg",), pid, camid, str(row)) for row, (pid, camid) in enumerate(gallery)]
    data = TrackletDataset("own", "", [], [Tracklet(("q.jpg",), 1, 1, "q")], tracklets, "", junk)
    query, exclude = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([itself])
    result = metrics.evaluate(query, features, *ids(data), junk=junk, exclude=exclude)
    return Evaluated(torch.nn.Identity(), data, load_recipe("synth_sta"), 4, query, features, exclude, result)


def test_junk_is_listed_and_does_not_count():
    seen = evaluated([(2, 1), (1, 1), (1, 1), (1, 2), (3, 2), (-1, 2), (1, 3)])
    (listed,) = ranked_lists(seen, ranks=3)
    assert [(place.gallery, place.kind) for place in listed] == [
        (0, "miss"), (1, "junk"), (2, "junk"), (3, "hit"), (4, "miss"),
    ]  # fmt: skip
    counted = [place.kind for place in listed if place.kind != "junk"]
    assert counted.index("hit") + 1 == seen.result.per_query["first_hit"].item()
    assert [place.distance for place in listed] == pytest.approx(
        (1 - seen.gallery[:5, 0]).tolist(), abs=1e-12
    )


def test_a_short_gallery_gives_all_it_has_but_the_query_itself():
    (listed,) = ranked_lists(evaluated([(1, 1), (1, 2), (-1, 2)], itself=0), ranks=50)
    assert [(place.gallery, place.kind) for place in listed] == [(1, "hit")]


def test_without_the_junk_rule_the_own_camera_counts():
    (listed,) = ranked_lists(evaluated([(2, 1), (1, 1), (1, 2)], junk=False), ranks=2)
    assert [place.kind for place in listed] == ["miss", "hit"]
    with pytest.raises(ValueError, match="ranks"):
        ranked_lists(evaluated([(1, 2)]), ranks=0)

import pytest

from vreid_ext.data import TrackletDataset, build_dataset, dataset_names, register_dataset, registry


def test_built_in_names():
    assert {"mars", "dukev", "tracklet_folder"} <= set(dataset_names())


def test_own_data_set_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(registry._datasets, "_factories", dict(registry._datasets._factories))

    @register_dataset("mine")
    def mine(root, *, season="summer"):
        return TrackletDataset("mine", str(root), [], [], [], protocol=season)

    assert build_dataset("mine", tmp_path, season="winter").protocol == "winter"
    with pytest.raises(ValueError, match="expected an unused data set name, got 'mine'"):
        register_dataset("mine")(mine)


def test_unknown_name_and_option_name_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"expected .*, got 'marz'; did you mean 'mars'"):
        build_dataset("marz", tmp_path)
    with pytest.raises(
        ValueError,
        match=r"^galery: expected an option of data set 'mars' \(gallery, .*; did you mean 'gallery'\?",
    ):
        build_dataset("mars", tmp_path, galery="with_query")

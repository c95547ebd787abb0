"""Photographs: files found and read, faces cut as the training data's, answers printed and kept, failures said."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import agegender.__main__ as cli
from agegender import faces, photos, pixels, predict, trained
from agegender.models import model_b
from agegender.photos import Face
from agegender.tasks import Tasks
from stubs import finished, validation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a finished run: a small network, not trained."""
    network = model_b.build(32, weights="none", alpha=0.35, tasks=Tasks("regression", True), head="linear", seed=3)
    return finished(tmp_path_factory.mktemp("04_small"), network, validation())


@pytest.fixture(scope="module")
def drawn():
    found = faces.read("sample", limit=60)
    return [found.root / file for file in found.table["file"].iloc[:6]]


@pytest.fixture
def album(tmp_path, drawn):
    """A folder of four good photographs in several formats and one bad one, and a note."""
    place = tmp_path / "album"
    (place / "more").mkdir(parents=True)
    images = [Image.open(path).convert("RGB") for path in drawn[:4]]
    images[0].save(place / "a.jpg", quality=95)
    images[1].save(place / "b.png")
    images[2].save(place / "more" / "c.webp", lossless=True)
    turned = images[0].transpose(Image.Transpose.ROTATE_90)  # as a camera held upright stores it
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(place / "d.jpg", quality=95, exif=exif)
    (place / "e.jpg").write_bytes(b"\xff\xd8 no picture")
    (place / "notes.txt").write_text("no photograph")
    return place


# Files


def test_files_folders_and_patterns_are_found_once(album):
    found, others = photos.files([album / "b.png", album, str(album / "*.jpg")])
    assert [path.name for path in found] == ["b.png", "a.jpg", "d.jpg", "e.jpg", "c.webp"] and others == 1
    with pytest.raises(FileNotFoundError, match="no photograph there"):
        photos.files([album / "nothing*"])


def test_hidden_files_are_left_out_but_not_a_folder_that_is_named(album, monkeypatch):
    (album / ".thumbs").mkdir()
    shutil.copy(album / "b.png", album / ".thumbs" / "x.png")
    assert "x.png" not in [path.name for path in photos.files([album])[0]]
    assert [path.name for path in photos.files([album / ".thumbs"])[0]] == ["x.png"]
    monkeypatch.chdir(album / "more")
    assert len(photos.files([".."])[0]) == 5 and len(photos.files(["."])[0]) == 1


def test_rotation_by_exif_is_honoured(album):
    upright, turned = (np.asarray(photos.read(album / name), np.int64) for name in ("a.jpg", "d.jpg"))
    assert upright.shape == turned.shape and np.abs(upright - turned).mean() < 4


def test_what_cannot_be_read_says_why(album, monkeypatch):
    with pytest.raises(ValueError, match="unreadable picture"):
        photos.read(album / "e.jpg")
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif (extra photos)")
    heif.register_heif_opener()
    Image.open(album / "b.png").save(album / "f.heic", quality=95)
    assert photos.read(album / "f.heic").size == Image.open(album / "b.png").size
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ValueError, match="pillow-heif"):
        photos.read(album / "f.heic")


# Cutting out


def test_turn_brings_points_to_their_places():
    rng = np.random.default_rng(0)
    points, angle = rng.uniform(0, 100, (5, 2)), 0.4
    aim = 2.5 * points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + (3, 7)
    there = photos.turn(points, aim)
    assert np.allclose(points @ there[:, :2].T + there[:, 2], aim)
    with pytest.raises(ValueError, match="one place"):
        photos.turn(np.ones((5, 2)), aim)


def _photo(angle: float, scale: float, side: int = 900) -> tuple[Image.Image, Face]:
    """A photograph of five coloured dots where a face has its eyes, nose and mouth, turned and scaled."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    points = (photos.landmarks() - 0.5) * 200 @ np.array([[c, s], [-s, c]]) + side / 2
    picture = np.full((side, side, 3), 90, np.uint8)
    y, x = np.mgrid[:side, :side]
    for number, (px, py) in enumerate(points):
        picture[np.hypot(x - px, y - py) < 6 * scale] = (250, 40 * number, 0)
    return Image.fromarray(picture), Face((0, 0, side, side), points, 1.0)


@pytest.mark.parametrize("angle, scale", [(0.0, 1.0), (0.5, 0.6), (-0.4, 3.0)])
@pytest.mark.parametrize("wider", [1.0, 1.3])
def test_eyes_and_mouth_come_to_lie_where_utkface_has_them(angle, scale, wider):
    image, face = _photo(angle, scale)
    square = photos.cut(image, face, 128, wider)
    assert square.shape == (128, 128, 3) and square.dtype == np.uint8
    for number, (x, y) in enumerate((0.5 + (photos.landmarks() - 0.5) / wider) * 128):
        red = np.hypot(*(square.astype(int) - (250, 40 * number, 0)).transpose(2, 0, 1)[:2])
        rows, columns = np.nonzero(red < 40)
        near = np.hypot(columns + 0.5 - x, rows + 0.5 - y) < 12
        assert near.any(), (number, wider)
        assert abs(columns[near].mean() + 0.5 - x) < 1.5 and abs(rows[near].mean() + 0.5 - y) < 1.5


def test_a_large_face_is_made_smaller_with_all_its_pixels():
    """Black and white pixels by lot become an even grey: each of the few that are left is a mean of many."""
    lots = np.random.default_rng(0).integers(0, 2, (2000, 2000, 1), np.uint8).repeat(3, axis=2) * 200
    points = (photos.landmarks() - 0.5) * 1600 + 1000
    square = photos.cut(Image.fromarray(lots), Face((0, 0, 2000, 2000), points, 1.0), 64)
    assert square.std() < 12 and 90 < square.mean() < 110


def test_beyond_the_photograph_its_edge_is_drawn_out():
    image, face = _photo(0.0, 1.0)
    outside = Face(face.box, face.points - (450, 0), 1.0)
    square = photos.cut(image, outside, 64)
    assert (square[:, 0] == 90).all()
    with pytest.raises(ValueError, match="outside"):
        photos.cut(image, Face(face.box, face.points - (5000, 0), 1.0), 64)


def test_a_box_is_cut_with_its_margin():
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[100:300, 100:300] = 255
    face = Face((100, 100, 300, 300), np.zeros((5, 2)), 1.0)
    assert photos.cut_box(Image.fromarray(picture), face, 50).min() > 250
    wide = photos.cut_box(Image.fromarray(picture), face, 50, 0.5)
    assert wide[:10].max() < 5 and wide[20:30, 20:30].min() > 250


def test_ready_crops_are_read_as_training_pictures_are(drawn, folder):
    square, box = photos.aligned(drawn[0], 32)
    assert np.array_equal(square, pixels.decode(drawn[0].read_bytes(), 32)[0])
    assert box[2] - box[0] == box[3] - box[1] > 0


# Answers


def test_a_notebook_takes_the_first_photographs_or_drawn_faces_of_all_ages(album):
    paths, drawn = predict.chosen(str(album), 2)
    assert [path.name for path in paths] == ["a.jpg", "b.png"] and not drawn
    paths, drawn = predict.chosen("sample", 8)
    ages = [int(path.name.partition("_")[0]) for path in paths]
    assert drawn and len(paths) == 8 and min(ages) < 15 and max(ages) > 50


def test_one_bad_file_stops_nothing(album, folder, tmp_path, capsys):
    out = tmp_path / "answers.csv"
    code = cli.main(["predict", str(album), "--aligned", "--model", str(folder), "--out", str(out)])
    printed = capsys.readouterr()
    table = pd.read_csv(out)
    assert code == 1 and len(table) == 5 and list(table) == list(predict.COLUMNS)
    bad = table[table["face"] == 0]
    assert bad["photo"].tolist() == [(album / "e.jpg").as_posix()] and "unreadable picture" in bad["note"].iloc[0]
    good = table[table["face"] == 1]
    assert good[["age", "age_low", "age_high", "p_female", "left", "bottom"]].notna().all().all()
    assert "photographs: 5, faces: 4, could not be read: 1, other files left alone: 1" in printed.err
    assert "e.jpg: unreadable picture" in printed.out and "no ground for any decision" in " ".join(printed.err.split())


def test_answers_are_those_of_the_model_for_the_same_pixels(album, folder):
    model = trained.load(folder)
    crops = []
    table = predict.answers(model, [album / "a.jpg", album / "b.png"], aligned=True, crops=crops)
    said = model.answers(np.stack([photos.aligned(album / name, 32)[0] for name in ("a.jpg", "b.png")]))
    assert np.allclose(table["age"], said["age"]) and np.allclose(table["p_female"], said["p_female"])
    assert len(crops) == 2 and crops[0].shape == (32, 32, 3)


def test_json_and_words(folder, drawn, tmp_path, capsys):
    out = tmp_path / "answers.json"
    asked = ["predict", *map(str, drawn[:2]), "--aligned", "--model", str(folder), "--out", str(out), "--sure", "1"]
    assert cli.main(asked) == 0
    kept = json.loads(out.read_text())
    assert [row["gender"] for row in kept] == ["uncertain", "uncertain"] and kept[0]["note"] is None
    assert "uncertain (female 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    "asked, said",
    [(["--out", "x.xlsx"], "ends in .csv or .json"), (["--sure", "0.2"], "from 0.5"), (["--model", "nowhere"], '"released"')],
)
def test_what_cannot_start_says_so(asked, said, drawn, capsys):
    assert cli.main(["predict", str(drawn[0]), "--aligned", *asked]) == 2
    assert said in capsys.readouterr().err


def test_without_mtcnn_the_way_out_is_said(drawn, folder, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "mtcnn", None)
    assert cli.main(["predict", str(drawn[0]), "--model", str(folder)]) == 2
    assert "pip install -e '.[photos]'" in capsys.readouterr().err


def test_several_faces_of_one_photograph_are_found_and_boxed(drawn, folder, tmp_path, capsys):
    pytest.importorskip("mtcnn", reason="looking for faces needs mtcnn (extra photos)")
    wide = Image.new("RGB", (900, 420), (120, 130, 140))
    for place, path in enumerate([drawn[1], drawn[0]]):
        wide.paste(Image.open(path).convert("RGB").resize((300, 300)), (40 + 440 * place, 30))
    wide.save(tmp_path / "two.png")
    Image.new("RGB", (300, 300), (120, 130, 140)).save(tmp_path / "none.png")
    asked = [str(tmp_path / "two.png"), str(tmp_path / "none.png")]
    out, copies = tmp_path / "answers.csv", tmp_path / "copies"
    assert cli.main(["predict", *asked, "--model", str(folder), "--out", str(out), "--annotated", str(copies)]) == 0
    table = pd.read_csv(out)
    assert table["note"].dropna().tolist() == [predict.NO_FACE]
    two = table[table["photo"].str.endswith("two.png")].sort_values("left")
    assert len(two) == 2
    for row, left in zip(two.itertuples(), (40, 480)):
        assert left - 30 < row.left < row.right < left + 330 and 0 <= row.top < row.bottom < 360
    before, after = np.asarray(wide, int), np.asarray(Image.open(copies / "two.png.annotated.jpg"), int)
    assert before.shape == after.shape and (np.abs(before - after) > 60).any()
    assert not (copies / "none.png.annotated.jpg").exists()


def test_annotated_copies_of_one_name_do_not_overwrite_each_other(drawn, tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        shutil.copy(drawn[0], tmp_path / place / "x.jpg")
    rows = [{"photo": str(tmp_path / place / "x.jpg"), "face": 1, "left": 0, "top": 0, "right": 9, "bottom": 9} for place in ("one", "two")]
    table = pd.DataFrame(rows, columns=list(predict.COLUMNS)).astype(predict.COLUMNS)
    assert predict.keep_annotated(table, tmp_path / "out") == 2
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("x.jpg.annotated.jpg")) == ["one", "two"]

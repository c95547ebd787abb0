"""How much of a head a network sees: what is measured, said and drawn of it, from answers that are made up or kept."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agegender import crops, figures_pictures, photos, predictions
from agegender.models import released


@pytest.fixture(scope="module")
def answers() -> pd.DataFrame:
    """Two hundred faces, ten of them missed; errors grow by 5 years for twice the width, and boxes cost 3 years."""
    rng, n = np.random.default_rng(0), 200
    age = rng.uniform(5, 80, n).round()
    faces = pd.DataFrame({"file": [f"{i:03d}.jpg" for i in range(n)], "fold": "test", "group": range(n), "age": age, "gender": 1})
    noise, parts = rng.normal(0, 4, n), []
    asked = [("plain", crops.ALIGNED, 1.0), *(("plain", crops.UPRIGHT, w) for w in crops.WIDER), ("tilted", crops.UPRIGHT, 1.0)]
    asked += [("plain", "box", m) for m in crops.MARGINS] + [("tilted", "box", 0.1)]
    for picture, crop, amount in asked:
        off = 3.0 if crop == "box" else 5 * abs(amount - 1)
        part = faces.assign(age_pred=age + noise + np.sign(noise) * off, p_female=0.9)
        if crop != crops.ALIGNED:
            part.loc[:9, ["age_pred", "p_female"]] = np.nan
        part = part.reindex(columns=list(predictions.COLUMNS)).astype(predictions.COLUMNS)
        parts.append(part.assign(picture=picture, crop=crop, amount=amount))
    return pd.concat(parts, ignore_index=True)


def test_crops_are_judged_on_the_same_faces(answers):
    found = crops.figures(answers)
    assert set(found["n"]) == {190}
    mae = found[found["measure"] == "age MAE"].set_index(["picture", "crop", "amount"])["value"]
    assert mae["plain", crops.UPRIGHT, 1.5] == pytest.approx(mae["plain", crops.UPRIGHT, 1.0] + 2.5, abs=0.01)
    assert mae["plain", crops.ALIGNED, 1.0] == mae["plain", crops.UPRIGHT, 1.0]


def test_words_and_title_say_what_the_table_holds(answers):
    said = crops.words(answers)
    assert "Of 200 of UTKFace's test faces" in said and "95.0 %" in said
    assert "the detour costs +0.0 years" in said and "setting the face upright costs +3.0 years" in said
    title = crops.title(crops.figures(answers))
    assert title.startswith("Ages are told best at UTKFace's own width") and "at 1.5 times the width" in title


def test_the_figure_says_its_numbers(answers, monkeypatch):
    seen = {}
    monkeypatch.setattr("agegender.figures.show", lambda figure, alt, faces=False: seen.update(alt=alt, faces=faces))
    figures_pictures.crop_effect(crops.figures(answers), "A title")
    assert "age MAE: " in seen["alt"] and " at 1.5" in seen["alt"] and not seen["faces"]


def test_a_face_is_put_whole_into_a_larger_picture():
    white = Image.new("RGB", (200, 200), "white")
    for seed in range(20):
        frame = np.asarray(crops.framed(white, np.random.default_rng(seed), crops.TILT if seed % 2 else 0))
        assert frame.shape == (*crops.FRAME[::-1], 3)
        assert 0.95 * 140**2 < (frame[..., 0] > 200).sum() < 1.05 * 400**2
        border = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
        assert (border[:, 0] < 250).mean() > 0.3


def test_landmarks_are_medians_of_training_faces_near_the_middle():
    class Data:
        table = pd.DataFrame({"file": ["a.png"] * 60})
        faces = type("F", (), {"root": None, "title": "made up"})
        digest, split_digest = "d", "s"
        rows = staticmethod(lambda fold: np.arange(60) if fold == "train" else [])

    places = photos.landmarks() * 200
    near, far = photos.Face((0, 0, 9, 9), places, 1.0), photos.Face((0, 0, 99, 99), places * 0.1, 1.0)
    calls = iter([[far, near]] * 55 + [[]] * 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "read", lambda path: Image.new("RGB", (200, 200)))
        Data.faces.root = __import__("pathlib").Path(".")
        kept = crops.landmarks(Data, lambda image: next(calls), 60)
        assert kept["asked"] == 60 and kept["found"] == 55
        assert np.allclose([kept["points"][name] for name in photos.POINTS], photos.landmarks(), atol=1e-3)
        calls = iter([[near]] * 20 + [[]] * 40)
        with pytest.raises(ValueError, match="found in 20 of 60"):
            crops.landmarks(Data, lambda image: next(calls), 60)


def test_other_faces_than_the_released_models_are_refused(capsys):
    pytest.importorskip("mtcnn", reason="looking for faces needs mtcnn (extra photos)")
    assert crops.measure("sample", 10) == 1
    assert "UTKFace that it was trained on" in capsys.readouterr().err


def test_what_is_kept_is_of_the_released_model_and_has_no_pictures():
    table = crops.stored()
    record = json.loads((crops.places.home() / crops.FOLDER / "record.json").read_text())
    assert record["released"] == released.record()["files"]
    assert record["data"]["split"]["digest"] == released.record()["facts"]["split"]["digest"]
    assert set(table["fold"]) == {"test"} and table["file"].nunique() == record["faces"]
    assert set(table.columns) == {*predictions.COLUMNS, "picture", "crop", "amount"}
    assert crops.words(table) and len(crops.figures(table))

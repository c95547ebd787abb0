"""Finished runs opened again: what is missing is said, what does not fit is refused, what is found is kept."""

from __future__ import annotations

import json
import shutil
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from PIL import Image

from agegender import comparison, corruptions, explain, faces, figures, figures_pictures, pixels
from agegender import predictions, provenance, reopened, words_pictures
from agegender.models import heads, model_a
from agegender.tasks import Tasks
from agegender.training import predict

SIZE, COUNT = 16, 48
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey pictures named as in UTKFace, of which the older are brighter, and women's brighter below."""
    top = tmp_path_factory.mktemp("faces")
    for k in range(COUNT):
        age, gender = 4 + 2 * (k % 40), k % 2
        picture = RNG.integers(0, 40, (SIZE, SIZE, 3)) + age
        picture[SIZE // 2 :] += 60 * gender
        Image.fromarray(picture.astype(np.uint8)).save(top / f"{age}_{gender}_0_2017{k:013d}.png")
    return top


def network(tasks=("age", "gender"), age="regression", precision="float32") -> keras.Model:
    """Reads age off the brightness and gender off where it is."""
    keras.config.set_dtype_policy(precision)
    try:
        keras.utils.set_random_seed(1)
        given = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="faces")
        x = layers.Rescaling(1 / 255)(given)
        x = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
        x = layers.AveragePooling2D(2)(x)
        x = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
        x = layers.GlobalAveragePooling2D()(x)
        wanted = Tasks(age if "age" in tasks else "", "gender" in tasks)
        return keras.Model(given, heads.answers(x, wanted))
    finally:
        keras.config.set_dtype_policy("float32")


def finish(where, folder, model, name="model A", flip=False, precision="float32") -> None:
    """What a run of `model` on the pictures in `folder` leaves behind."""
    where.mkdir(parents=True)
    pictures = pixels.open_pictures(faces.read(folder), SIZE, progress=False)
    table = pictures.faces.table.assign(
        group=np.arange(COUNT) // 2, fold=["test", "test", "val"] * (COUNT // 3)
    )
    said = predict(model, pictures.pixels, np.arange(COUNT), flip=flip)
    predictions.write(predictions.table(table, said), where / "predictions.parquet")
    pd.DataFrame({"epoch": [1], "kept": [True], "val_loss": [1.0]}).to_parquet(where / "history.parquet")
    record = {"facts": {"model": name, "flip_test": flip, "split": {"digest": "x"}}, "devices": provenance.devices(),
              "parameters": {"size": SIZE, "precision": precision}}  # fmt: skip
    (where / "provenance.json").write_text(json.dumps(record))
    model.save(where / "model.keras")


@pytest.fixture
def home(tmp_path, monkeypatch, own_cache):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def shown(monkeypatch) -> list:
    found = []
    monkeypatch.setattr(
        figures,
        "display",
        lambda thing, raw=False, metadata=None: found.append(metadata["image/png"] if raw else thing.data),
    )
    return found


def opened(home, folder, **kind):
    runs = comparison.open_runs([f"runs/own/{path.name}" for path in sorted((home / "runs/own").iterdir())])
    return reopened.open_all(runs, str(folder), **kind)


def test_a_network_is_loaded_and_a_missing_or_damaged_one_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model.keras in .*a run that was trained here has one"):
        reopened.load(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="model.keras cannot be read .*run the model's notebook again"):
        reopened.load(tmp_path)
    model = model_a.build(16, 2, Tasks("distribution"))
    model.save(tmp_path / "model.keras")
    whole = (tmp_path / "model.keras").read_bytes()
    again, picture = reopened.load(tmp_path), np.zeros((1, 16, 16, 3), np.uint8)
    assert again.predict_on_batch(picture)["age"] == pytest.approx(model.predict_on_batch(picture)["age"])
    (tmp_path / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        reopened.load(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [{}, {"flip": True}, {"tasks": ("age",), "age": "distribution"}, {"tasks": ("gender",)},
     {"precision": "mixed_bfloat16", "age": "distribution"}],
    ids=["plain", "flip", "age alone", "gender alone", "half precision"],
)  # fmt: skip
def test_all_is_done_with_what_a_network_answers(home, folder, shown, kind):
    flip, precision = kind.pop("flip", False), kind.get("precision", "float32")
    finish(home / "runs/own/a", folder, network(**kind), flip=flip, precision=precision)
    again, absent = opened(home, folder, count=30)
    one = again["model A"]
    assert not absent and len(one.table) == 30 and one.flip == flip
    assert one.outputs == kind.get("tasks", ("age", "gender")) and set(one.table["fold"]) == {"test"}
    assert words_pictures.opened(again, absent, 32).startswith(
        "Opened again with their pictures: model A, on 30 of 32"
    )

    damaged = reopened.under_corruptions(again, 20, home, seed=1, severities=(3,))
    stored = pd.read_parquet(home / "robustness.parquet")
    assert len(stored) == len(damaged) == 20 * 14 and set(stored["severity"]) == {0, 3}
    errors, rises = corruptions.errors(damaged), corruptions.rises(damaged, "model A")
    measures = {"age": "age MAE", "gender": "gender accuracy"}
    assert set(errors["measure"]) == set(rises["measure"]) == {measures[output] for output in one.outputs}
    before = errors.query("severity == 0 and measure == @measures[@one.outputs[0]]")["value"].iloc[0]
    table = one.table.iloc[:20]
    expected = (table["age_pred"] - table["age"]).abs().mean() if "age" in one.outputs else (
        ((table["p_female"] > 0.5) == (table["gender"] == 1)).mean()
    )  # fmt: skip
    assert before == pytest.approx(float(expected), rel=0.02)
    assert "nan" not in words_pictures.damage("model A", rises) and "20 faces" in words_pictures.damage(
        "model A", rises
    )
    for measure in corruptions.MEASURES:
        figures_pictures.damage(errors, measure, words_pictures.damage_title("model A", rises, measure))
        answered = measure in set(rises["measure"])
        assert (
            ("13 panels" in shown[-1]["alt"] and not shown[-1]["faces"])
            if answered
            else "no figure" in shown[-1]
        )
    assert len(words_pictures.damage_table(rises)) == 13

    maps = reopened.all_maps(again, 30)
    assert set(maps["model A"]) == set(one.outputs)
    own = maps["model A"]
    for made in own.values():
        assert (
            made.maps.shape == (30, SIZE, SIZE) and made.method == "Grad-CAM" and np.isfinite(made.maps).all()
        )
    means = reopened.averages(maps, one.table, home)
    with np.load(home / "explanation.npz") as file:
        assert set(file.files) == {"|".join(key) for key in means}
        assert file[f"model A|{one.outputs[0]}|all"] == pytest.approx(
            own[one.outputs[0]].maps.mean(0), abs=1e-2
        )
    assert ("men" in {group for *_, group in means}) and "nan" not in words_pictures.explained(
        "model A", own, means, one
    )
    figures_pictures.explained_faces(one, own, "Faces")
    figures_pictures.mean_maps("model A", one, own, means, "Means")
    figures_pictures.models_maps(again, maps, means, "Models")
    assert all(said["faces"] is True for said in shown[-3:])
    check = reopened.check(one, own, home, draws=1)
    assert set(check["drawn"]) == {"", "upper half", "all"} and len(
        pd.read_parquet(home / "explanation.parquet")
    ) == len(check)
    assert "nan" not in words_pictures.checked("model A", check, 1)
    figures_pictures.check(check, words_pictures.check_title("model A", check))


def test_what_is_missing_is_said_and_nothing_shown(home, folder, shown, monkeypatch):
    finish(home / "runs/own/a", folder, network())
    for count, change, why in (
        (0, None, "not asked for"),
        (9, lambda: None, "no picture of its test faces in"),
        (9, lambda: (home / "runs/own/a/model.keras").unlink(), "no model.keras in its folder"),
    ):
        if change:
            change()
        elsewhere = home / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(elsewhere / "5_0_0_20170000000000000.png")
        again, absent = opened(home, elsewhere, count=count)
        assert not again and why in absent["model A"]
        said = words_pictures.opened(again, absent, 32)
        assert said.startswith("No network was opened again (model A: ") and why in said
    damaged = reopened.under_corruptions({}, 9, home)
    rises = corruptions.rises(damaged, "")
    assert corruptions.errors(damaged).empty and rises.empty and not (home / "robustness.parquet").exists()
    assert "nothing to say" in words_pictures.damage("", rises)
    figures_pictures.damage(
        corruptions.errors(damaged), "age MAE", words_pictures.damage_title("", rises, "age MAE")
    )
    maps = reopened.all_maps({}, 9)
    assert maps == {} and reopened.leader({}, "model A") == ""
    assert words_pictures.explained("", {}, {}, None).startswith(
        "No map of where answers come from was computed"
    )
    figures_pictures.explained_faces(None, {}, "")
    figures_pictures.mean_maps("", None, {}, {}, "")
    figures_pictures.models_maps({}, {}, {}, "")
    check = reopened.check(None, {}, home)
    figures_pictures.check(check, words_pictures.check_title("", check))
    assert words_pictures.checked("", check) == "No map was computed, so there is none to check."
    assert len(shown) == 5 and all(text.endswith("so there is no figure.") for text in shown)


def test_without_weights_no_framework_is_loaded(home, folder):
    finish(home / "runs/own/a", folder, network())
    (home / "runs/own/a/model.keras").unlink()
    code = (
        "import sys\nfrom agegender import comparison, figures_pictures, reopened, words_pictures\n"
        f"print(reopened.open_all(comparison.open_runs(), {str(folder)!r}))\n"
        "assert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_pictures_of_another_set_are_refused(home, folder, tmp_path):
    finish(home / "runs/own/a", folder, network())
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for path in other.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(ValueError, match="model A says .* and its run said .*are not those of that run"):
        opened(home, other, count=9)


def test_a_damaged_network_is_an_error_and_one_without_age_or_gender_is_left_out(home, folder):
    finish(home / "runs/own/a", folder, network())
    finish(home / "runs/own/b", folder, network(), "model B")
    table = predictions.read(home / "runs/own/b").assign(age_pred=np.nan, p_female=np.nan)
    predictions.write(table, home / "runs/own/b/predictions.parquet")
    again, absent = opened(home, folder, count=9)
    assert list(again) == ["model A"] and absent == {
        "model B": "it was asked neither for an age nor for a gender"
    }
    said = words_pictures.opened(again, absent, 32)
    assert said.endswith("Not opened: model B: it was asked neither for an age nor for a gender.")
    assert reopened.leader(again, "model B") == "model A"
    (home / "runs/own/a/model.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match="cannot be read"):
        opened(home, folder, count=9)


def test_half_precision_and_another_device_may_round(home):
    here = {"devices": provenance.devices(), "parameters": {"precision": "float32"}}
    assert reopened._allowed(here) == reopened._allowed({"parameters": {}}) == reopened.EXACT
    assert reopened._allowed(here | {"parameters": {"precision": "mixed_bfloat16"}}) == reopened.ROUGH
    assert reopened._allowed(here | {"devices": ["gpu:0"]}) == reopened.ROUGH


# Words


def rises(age=(3.0, 1.0, -2.0), p=(0.001, 0.6, 0.01), gender=None, intervals=True) -> pd.DataFrame:
    names = ["blur", "noise", "JPEG"]
    rows = []
    for measure, values in (("age MAE", age), ("gender accuracy", gender)):
        for name, value, chance in zip(names, values or (), p):
            width = abs(value) / 2 if intervals else np.nan
            rows.append(
                (measure, name, 2.0, "% of it", value, value - width, value + width, 40, chance, chance)
            )
    return pd.DataFrame(
        rows, columns=["measure", "corruption", "level", "unit", "value", "low", "high", "n", "p", "p_holm"]
    )


def test_words_on_damage_change_with_the_numbers():
    said = words_pictures.damage("model A", rises())
    assert 'model A\'s age error rises by 3.0 years [1.5, 4.5] under "blur" (2 % of it)' in said
    assert 'least does "JPEG" (2 % of it): it falls by 2.0 years [1.0, 3.0]' in said
    assert "1 of 3 kinds of damage hurts more than chance would; not shown to: noise; JPEG does good." in said
    every = words_pictures.damage("model A", rises((3.0, 1.0, 2.0), (0.01, 0.01, 0.01)))
    assert "All 3 kinds of damage hurt more than chance would." in every
    none = words_pictures.damage("model A", rises(p=(0.5, 0.6, 0.7)))
    assert "None of 3 kinds of damage is shown to hurt." in none
    few = words_pictures.damage("model A", rises(p=(np.nan,) * 3, intervals=False))
    assert (
        "too few faces for an interval" in few
        and "too few faces to tell that from chance" in few
        and "nan" not in few
    )
    gender = words_pictures.damage("model A", rises((), gender=(-0.2, 0.0, 0.05)))
    assert "falls by 20.0 points [10.0, 30.0]" in gender and "it rises by 5.0 points" in gender
    same = words_pictures.damage("model A", rises((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    assert "is the same under every damage of middle severity**." in same


def test_titles_on_damage_say_which_costs_most():
    title = words_pictures.damage_title("model A", rises(), "age MAE")
    assert (
        title
        == 'Of middle severity, "blur" (2 % of it) adds most to the age error of model A: 3.0 years [1.5, 4.5]'
    )
    gender = rises((), gender=(-0.2, 0.0, 0.05))
    assert "costs most genders told right by model A: 20.0 points" in words_pictures.damage_title(
        "model A", gender, "gender accuracy"
    )
    assert words_pictures.damage_title("model A", gender, "age MAE").startswith("No age error")
    better = rises((-1.0, -2.0, -3.0))
    assert (
        words_pictures.damage_title("A", better, "age MAE")
        == "No damage of middle severity is seen to cost A anything in age"
    )


def test_the_table_of_damage_has_a_row_for_each_kind():
    table = words_pictures.damage_table(rises(gender=(-0.2, 0.0, 0.05)))
    assert list(table.index) == ["blur", "noise", "JPEG"] and table.shape == (3, 5)
    assert table.loc["blur", "genders right changes by"] == "-20.0 points [-30.0, -10.0]"
    assert list(words_pictures.damage_table(rises())) == ["severity", "age error changes by", "p (age error)"]


def alike(value, low, high, least=None, most=None, left_out=0.0, n=50) -> pd.DataFrame:
    row = dict(output="age", drawn="all", value=value, low=low, high=high, n=n, left_out=left_out,
               least=value if least is None else least, most=value if most is None else most)  # fmt: skip
    return pd.DataFrame([row])


def test_the_check_is_told_either_way():
    assert "change when all weights" in words_pictures.checked("A", alike(0.1, 0.05, 0.15))
    stay = words_pictures.checked("A", alike(0.8, 0.7, 0.9))
    assert "stay much the same" in stay and "not of what was learned" in stay
    assert "stay much the same" in words_pictures.checked("A", alike(-0.8, -0.9, -0.7))
    assert "may or may not" in words_pictures.checked("A", alike(0.45, 0.4, 0.55))
    assert "may or may not" in words_pictures.checked("A", alike(0.1, 0.05, 0.15, least=-0.1, most=0.6))
    few = words_pictures.checked("A", alike(0.1, np.nan, np.nan))
    assert "too few to check" in few and "nan" not in few
    empty = words_pictures.checked("A", alike(np.nan, np.nan, np.nan, n=0))
    assert "cannot be checked" in empty and "nan" not in empty
    assert "Left out: 20 % of the pairs" in words_pictures.checked("A", alike(0.1, 0.0, 0.2, left_out=0.2))


def test_where_a_map_lies():
    values = np.zeros((9, 9))
    assert words_pictures.place(values) == "nowhere"
    values[0, 0], values[4, 4] = 1, 3
    assert words_pictures.place(values) == "centre (75 %)" and words_pictures.ninths(values)[0, 0] == 0.25
    values[8, 4] = 6
    assert words_pictures.place(values) == "bottom centre (60 %)"


# Maps in the right place


def dots(at: int, count: int = 3) -> np.ndarray:
    drawn = np.zeros((count, 40, 40, 3), np.uint8)
    drawn[:, at - 1 : at + 2, at - 1 : at + 2] = 255
    return drawn


@pytest.mark.parametrize("at", [12, 20, 26])
@pytest.mark.parametrize("nested", [False, True])
def test_a_map_lies_over_what_it_is_made_from_without_padding_too(at, nested):
    """A bright dot, and convolutions without padding: the map is brightest where the dot is."""
    keras.utils.set_random_seed(0)
    given = keras.Input((40, 40, 3), dtype="uint8", name="faces")
    body = keras.Sequential(
        [keras.Input((40, 40, 3)), layers.Conv2D(1, 5, strides=2, use_bias=False), layers.ZeroPadding2D(((2, 0), (2, 0))),
         layers.AveragePooling2D(2), layers.Conv2D(1, 3, use_bias=False)]
    )  # fmt: skip
    x = layers.Rescaling(1 / 255)(given)
    if nested:
        x = body(x)
    else:
        for layer in body.layers:
            x = layer(x)
    x = layers.Dense(1, name="age")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(given, {"age": x})
    model.set_weights([np.ones_like(w) if w.ndim > 1 else w for w in model.get_weights()])
    peak = explain.grad_cam(model, dots(at))[0]
    rows = np.flatnonzero(peak.max(1) > 0.999)
    assert abs(rows.mean() - at) <= 2  # half a step between cells
    first, step = explain.centres(explain.split(model)[0])
    assert step == 4 and first == 2 + 2 * (0.5 - 2) + 4 * 1


def test_a_flat_head_is_told_from_an_averaged_one():
    flat, mean = (model_a.build(32, 2, pooling=pooling) for pooling in ("flatten", "average"))
    assert explain.flattens(flat) and not explain.flattens(mean)


def test_cells_that_no_map_uses_do_not_make_maps_alike():
    """Pooling leaves the last row out: two unrelated maps are 0 there, and still unrelated."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 400, 6, 6))
    a[:, 3:], b[:, 3:] = 0, 0
    assert abs(explain.similarity(a, b).mean()) < 0.05
    assert np.isnan(explain.similarity(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)))).all()


def test_faces_without_a_label_of_gender_are_in_no_group_of_one():
    table = pd.DataFrame({"age": [30.0] * 12, "gender": pd.array([pd.NA] * 12, "Int8")})
    assert set(reopened.groups(table)) == {"26-35"}

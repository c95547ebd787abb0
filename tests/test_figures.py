"""Every figure has an alt text and says whether faces are on it; without labels stands a sentence."""

from __future__ import annotations

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agegender import duplicates, figures, figures_comparison, labels, metrics, predictions, splits
from agegender.faces import age_band

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)


def table(n: int = 60, age: bool = True, gender: bool = True) -> pd.DataFrame:
    ages = np.arange(n) * 1.7 % 90 if age else np.full(n, np.nan)
    genders = [k % 2 for k in range(n)] if gender else [None] * n
    return pd.DataFrame({
        "file": [f"{k:03d}.jpg" for k in range(n)],
        "age": ages,
        "gender": pd.array(genders, dtype="Int8"),
        "race": pd.array([k % 3 for k in range(n)], dtype="Int8"),
        "person": pd.Series([None] * n, dtype=object),
        "band": age_band(ages),
        "fold": np.resize(["train"] * 8 + ["val", "test"], n),
    })  # fmt: skip


@pytest.fixture
def shown(monkeypatch) -> list:
    """What a cell displays: (data, metadata) of pictures, or the text of a sentence."""
    found = []

    def display(thing, raw=False, metadata=None):
        found.append((thing, metadata["image/png"]) if raw else thing.data)

    monkeypatch.setattr(figures, "display", display)
    return found


def picture(shown: list) -> dict:
    """The metadata of the one picture shown, after a look whether it is one."""
    assert len(shown) == 1 and isinstance(shown[0], tuple), shown
    data, said = shown[0]
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    image.load()
    assert said["alt"].strip() and isinstance(said["faces"], bool)
    assert said["width"] == image.width * 96 // figures.DPI <= 800  # a title that's too long would widen it
    assert not plt.get_fignums(), "the figure is closed, or it is shown twice"
    return said


def test_a_picture_without_alt_text_is_refused(shown):
    for alt in ("", "  \n"):
        with pytest.raises(ValueError, match="needs an alt text"):
            figures.show(plt.figure(), alt)
    assert not shown
    plt.close("all")


def test_show_keeps_alt_text_and_says_whether_faces_are_on_it(shown):
    figures.show(plt.figure(figsize=(4, 2)), "An empty figure.", faces=True)
    assert picture(shown)["alt"] == "An empty figure." and picture(shown)["faces"] is True


TWINS = pd.DataFrame(
    {"i": [0, 2, 4], "j": [1, 3, 5], "kind": ["identical", "near", "mirrored"], "similarity": 1.0}
)
GAPS = duplicates.label_gaps(table(), TWINS)
TRAIN = table()[lambda t: t["fold"] == "train"].reset_index(drop=True)
INFO = pd.DataFrame({"brightness": RNG.uniform(40, 220, 60), "contrast": RNG.uniform(10, 90, 60)})

WITHOUT_FACES = {
    "ages": lambda t: figures.ages(labels.by_year(t), labels.ages_in_words(t)),
    "age_bands": lambda t: figures.age_bands(labels.bands_by_race(t), "No ages"),
    "heaping": lambda t: figures.heaping(
        labels.by_year(t), {"round": labels.ROUND}, labels.heaping_in_words(t["age"])
    ),
    "shares": lambda t: figures.shares(
        w := labels.women_by_band(t), labels.women_in_words(w), "female (%)", 0.5
    ),
    "age_gaps": lambda t: figures.age_gaps(duplicates.label_gaps(t, TWINS), "No two ages"),
    "balance": lambda t: figures.balance(
        b := splits.balance_table(t, splits.balance(t)), labels.balance_in_words(b)
    ),
}


@pytest.mark.parametrize("name", WITHOUT_FACES)
def test_figures_of_counts(name, shown):
    WITHOUT_FACES[name](table())
    assert picture(shown)["faces"] is False


@pytest.mark.parametrize("name", WITHOUT_FACES)
def test_without_ages_a_sentence_says_so(name, shown):
    WITHOUT_FACES[name](table(age=False))
    assert len(shown) == 1 and shown[0].endswith("so there is no figure."), shown


def test_light(shown):
    figures.light(INFO, "Dark and bright")
    assert picture(shown)["faces"] is False


def test_pictures_of_faces_say_so_and_name_the_labels(shown):
    figures.faces_by_band(PIXELS, table(), rows=2)
    said = picture(shown)
    assert said["faces"] is True and "of 8 age bands" in said["alt"] and " f; " in said["alt"]
    shown.clear()
    figures.face_pairs(PIXELS, table(), TWINS, "Twins")
    said = picture(shown)
    assert said["faces"] is True and "identical: 0 m, 1 f" in said["alt"]
    shown.clear()
    figures.picture_table([PIXELS[:3], PIXELS[3:6]], ["before", "after"], ["a", "b", "c"], "Six faces")
    said = picture(shown)
    assert said["faces"] is True and "2 rows (before, after)" in said["alt"]


def test_a_grid_has_room_for_bands_with_few_faces(shown):
    few = table(3)
    figures.faces_by_band(PIXELS[:3], few, rows=3)
    assert picture(shown)["alt"].startswith("3 faces of 1 age bands")


def test_nothing_to_pair_or_to_show(shown):
    figures.face_pairs(PIXELS, table(), TWINS[:0], labels.shown_in_words(0, 0))
    figures.faces_by_band(PIXELS, table(age=False))
    assert shown == [
        "No two pictures are copies of one another, so there is no figure.",
        "No face has an age, so there is no figure.",
    ]


def test_a_long_title_is_broken_not_cut(shown):
    title = "Seventeen words on one line are more than a figure of eight inches has room for, so it breaks"
    figures.ages(labels.by_year(table()), title)
    assert title in picture(shown)["alt"]


def predicted(shift: float = 3.0) -> pd.DataFrame:
    """A table of predictions, off by `shift` years, with one face without labels."""
    made = predictions.table(
        table().assign(group=range(60)), {"age": table()["age"] + shift, "gender": RNG.random(60)}
    )
    made.loc[0, ["age", "gender"]] = [np.nan, pd.NA]
    return made.assign(band=age_band(made["age"]))


HISTORY = pd.DataFrame({"epoch": [1, 2], "kept": [False, True], "val_loss": [2.0, 1.0], "age_mae": [9.0, 8.0], "val_age_mae": [9.0, 7.0],
                        "gender_accuracy": [0.5, 0.8], "val_gender_accuracy": [0.6, 0.7]})  # fmt: skip


def test_learning_curves_tell_first_and_last_figures(shown):
    figures.learning_curves({"model A": HISTORY, "model B": HISTORY}, "A title that is rather long " * 6)
    assert "model B: validation age MAE from 9.0 to 7.0 years, gender accuracy from 60% to 70%" in picture(shown)["alt"]


def test_predicted_against_true(shown):
    figures.predicted_against_true(predicted(), "Off by three")
    assert "of 59 faces, correlation 1.00" in picture(shown)["alt"] and picture(shown)["faces"] is False


@pytest.mark.parametrize("by", ["model", "band"])
def test_intervals_are_told_and_small_cells_have_none(by, shown):
    summary = pd.concat(
        metrics.summary(predicted(shift), None if by == "model" else by).assign(model=name)
        for name, shift in (("A", 3.0), ("B", 5.0))
    )
    figures.intervals(summary, "A is off by less", by=by, naive={"age MAE": 20.0})
    alt = picture(shown)["alt"]
    assert "A: age MAE 3.0 years" in alt and "B: gender accuracy " in alt
    assert ("too few faces for an interval" in alt) == (by == "band")


MANY = [f"model {i}, as run (of_some_folder_with_a_long_name, seed {i})" for i in range(13)]


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[plt.Figure, str]]:
    """Figures as they are handed over to be displayed, with their alt texts."""
    found = []
    monkeypatch.setattr(figures, "show", lambda figure, alt, faces=False: found.append((figure, alt)))
    return found


def named(figure: plt.Figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


def test_learning_curves_draw_and_name_every_run(drawn):
    """Those that tell gender alone as well, and those past the last colour of the palette."""
    alone = HISTORY.drop(columns=["age_mae", "val_age_mae"])
    figures.learning_curves({name: HISTORY if i % 2 else alone for i, name in enumerate(MANY)}, "Many")
    ((figure, _),) = drawn
    assert named(figure) == MANY
    assert [len(axis.lines) for axis in figure.axes] == [2 * 6, 2 * 13]
    figures.learning_curves({MANY[0]: HISTORY}, "One")
    for one, _ in drawn:
        one.draw_without_rendering()
    many, few = (one.axes[0].get_window_extent().height for one, _ in drawn)
    assert many == pytest.approx(few, rel=0.15), "the legend takes the curves' room"


def told_by(names, by: str | None = "band") -> pd.DataFrame:
    parts = {name: metrics.summary(predicted(1.0 + i), by).assign(model=name) for i, name in enumerate(names)}
    parts[names[-1]] = parts[names[-1]].query("measure == 'gender accuracy'")  # a model of gender alone
    return pd.concat(parts.values())


def test_many_models_by_band_are_a_map(drawn):
    figures_comparison.bands(told_by(MANY), "Many")
    ((figure, alt),) = drawn
    rows = [[text.get_text().replace("\n", " ") for text in axis.get_yticklabels()] for axis in figure.axes]
    assert rows == [MANY[:-1], MANY]
    assert f"{MANY[3]}, 0-5 years: age MAE 4.0 years" in alt
    figure.draw_without_rendering()
    assert figure.get_tightbbox().width < figures.WIDTH + 0.5, "wider than the page"


def test_a_few_models_by_band_are_dots(drawn):
    figures_comparison.bands(told_by(MANY[:3]), "Few", naive={"age MAE": 20.0})
    ((figure, alt),) = drawn
    assert named(figure) == MANY[:3] and alt.startswith("Dots")
    assert figure.axes[0].get_yticklabels()[0].get_text() == "0-5"


@pytest.mark.parametrize("by", ["model", "band"])
def test_dots_of_many_models_fit_the_page(by, drawn):
    figures.intervals(told_by(MANY, None if by == "model" else by), "Many", by=by)
    ((figure, _),) = drawn
    figure.draw_without_rendering()
    assert figure.get_tightbbox().width < figures.WIDTH + 0.5, "wider than the page"


def test_captions_hold_what_was_predicted_and_the_label(shown):
    made = predicted()
    figures.predicted_faces(PIXELS, made, "Sixty faces")
    said = picture(shown)
    assert said["faces"] is True and f"{made['age_pred'][1]:.0f} ({int(made['age'][1])})" in said["alt"]
    shown.clear()
    figures.compared_faces(PIXELS[:3], {"A": made.head(3), "B": made.head(3)}, "Three faces")
    assert "B: 3 " in picture(shown)["alt"] and "? ?" in picture(shown)["alt"]

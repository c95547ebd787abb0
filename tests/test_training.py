"""Training: batches, missing labels, stages, and a killed run that ends as an unbroken one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from agegender import training
from agegender.augment import augmentation
from agegender.models.heads import age_head, gender_head

SIZE, COUNT = 32, 100


@pytest.fixture(scope="module")
def faces():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    table = pd.DataFrame({
        "file": [f"{i}.jpg" for i in range(COUNT)],
        "age": rng.integers(0, 90, COUNT).astype(float),
        "gender": pd.array(rng.integers(0, 2, COUNT), dtype="Int8"),
    })  # fmt: skip
    table.loc[[3, 90], "age"] = np.nan
    table.loc[[5, 95], "gender"] = pd.NA
    return pixels, table, np.arange(80), np.arange(80, COUNT)


def small():
    """The least network with all that a training has to keep: augmentation, dropout, batch norm, a backbone."""
    keras.utils.set_random_seed(1)
    body = [layers.Conv2D(4, 3, strides=4), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(8, 3)]
    faces = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(augmentation(1.0, 0)(faces))
    x = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *body], name="backbone")(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return keras.Model(faces, {"age": age_head(x, 40.0), "gender": gender_head(x)})


def test_every_face_of_an_epoch_is_seen_and_batches_have_one_shape(faces):
    pixels, table, rows, _ = faces
    batches = training.Batches(pixels, rows, 32, training.labels_of(table), seed=1)
    assert len(batches) == 3 and {batches[i][0].shape for i in range(3)} == {(32, SIZE, SIZE, 3)}
    assert batches[0][0].dtype == np.uint8
    assert set(batches.order) == set(rows)
    first = batches.order.copy()
    batches.on_epoch_end()
    assert (batches.order != first).any()
    later = training.Batches(pixels, rows, 32, training.labels_of(table), seed=1, epoch=1)
    assert (batches.order == later.order).all()  # an epoch's order doesn't depend on the ones before


def test_missing_labels_and_filled_up_batches_count_nothing(faces):
    pixels, table, _, val = faces
    model = small()
    recipe = training.s1_model_a(1)
    training.compile_model(model, recipe, recipe.stages[0])
    scored = model.evaluate(
        training.Batches(pixels, val, 8, training.labels_of(table)), return_dict=True, verbose=0
    )
    said = training.predict(model, pixels, val, batch=8)
    truth = table.iloc[val]
    age = (said["age"] - truth["age"].to_numpy())[truth["age"].notna()]
    known = truth["gender"].notna().to_numpy()
    right = (said["gender"] > 0.5)[known] == (truth["gender"][known] == 1)
    assert scored["age_mae"] == pytest.approx(np.abs(age).mean(), rel=1e-4)
    assert scored["gender_accuracy"] == pytest.approx(right.mean(), rel=1e-5)
    assert len(said["age"]) == len(val)


def test_predictions_follow_the_rows_asked_for(faces):
    pixels = faces[0]
    model = small()
    rows = np.array([7, 3, 99, 3])
    said = training.predict(model, pixels, rows, batch=3)["age"]
    alone = model.predict(pixels[rows], verbose=0)["age"][:, 0]
    assert np.allclose(said, alone, atol=1e-3) and said[1] == said[3]


def test_the_best_epoch_is_kept_and_history_is_whole(faces, tmp_path):
    pixels, table, rows, val = faces
    model = small()
    history = training.train(model, pixels, table, rows, val, training.s1_model_a(4), tmp_path)
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    scored = model.evaluate(
        training.Batches(pixels, val, 32, training.labels_of(table)), return_dict=True, verbose=0
    )
    best = history.loc[history["val_loss"].idxmin()]
    assert scored["age_mae"] == pytest.approx(best["val_age_mae"], rel=1e-4)


def test_stages_unfreeze_from_the_top_and_frozen_batch_norm_stays_as_it_was(faces, tmp_path):
    pixels, table, rows, val = faces
    recipe = training.s1_model_b(epochs=5, frozen_epochs=1, steps=2)
    assert [(s.epochs, s.unfrozen) for s in recipe.stages] == [(1, 0.0), (2, 0.5), (2, 1.0)]
    model = small()
    body = model.get_layer("backbone")
    for stage, share in ((0, 0.0), (1, 0.5), (2, 1.0)):
        training.compile_model(model, recipe, recipe.stages[stage])
        flags = [layer.trainable for layer in body.layers]
        assert sum(flags) == round(share * len(flags)) and flags == sorted(flags)
    before = [w.copy() for w in body.get_weights()]
    frozen = training.Recipe("test", (training.Stage(1, 1e-3, 0.0),))
    training.train(model, pixels, table, rows, val, frozen, tmp_path)
    assert all((a == b).all() for a, b in zip(before, body.get_weights()))


class Killed(Exception):
    pass


def test_a_run_broken_off_anywhere_ends_as_an_unbroken_one(faces, tmp_path, monkeypatch):
    pixels, table, rows, val = faces
    recipe = replace(
        training.s1_model_b(14, 2, 1, learning_rate=0.3), patience=1
    )  # the rate is cut on the way
    whole = small()
    expected = training.train(whole, pixels, table, rows, val, recipe, tmp_path / "whole")
    save = training._Progress.save
    for stop in (2, 7, 9, None):  # within stages and between them

        def saved(self):
            save(self)
            if len(self.history) == stop:
                raise Killed

        monkeypatch.setattr(training._Progress, "save", saved)
        model = small()
        try:
            history = training.train(model, pixels, table, rows, val, recipe, tmp_path / "broken")
        except Killed:
            assert stop is not None
    assert expected["learning_rate"].nunique() > 2
    columns = [c for c in expected if c != "seconds"]
    pd.testing.assert_frame_equal(history[columns], expected[columns])
    assert all((a == b).all() for a, b in zip(whole.get_weights(), model.get_weights()))


SCRIPT = """
    import sys
    import numpy as np, pandas as pd
    from agegender import training
    from test_training import small
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (64, 32, 32, 3), dtype=np.uint8)
    table = pd.DataFrame({"file": [f"{i}" for i in range(64)], "age": np.arange(64.0), "gender": np.arange(64) % 2})
    history = training.train(small(), pixels, table, np.arange(48), np.arange(48, 64),
                             training.s1_model_a(int(sys.argv[2])), sys.argv[1])
    print("finished", len(history))
"""


def test_kill_9_in_the_middle_then_the_same_command_goes_on(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(Path(__file__).resolve().parents[i]) for i in (0, 1)),
    }
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), "40"]
    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    for line in first.stdout:  # kill it at no particular moment after its third epoch
        if line.startswith("epoch   3/"):
            break
    time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / ".checkpoint.npz").is_file()
    second = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "going on after epoch" in second.stdout and "finished 40" in second.stdout


def test_a_kept_state_of_another_training_is_not_taken(faces, tmp_path, capsys):
    pixels, table, rows, val = faces
    training.train(small(), pixels, table, rows, val, training.s1_model_a(1), tmp_path)
    for change in (
        dict(recipe=training.s1_model_a(1, 2e-3)),
        dict(seed=5),
        dict(pixels=255 - pixels),
        dict(rows=rows[1:]),
    ):
        given = {**dict(pixels=pixels, rows=rows, recipe=training.s1_model_a(1), seed=0), **change}
        training.train(
            small(), given["pixels"], table, given["rows"], val, given["recipe"], tmp_path, given["seed"]
        )
        assert "starting anew" in capsys.readouterr().out, change
    training.train(small(), pixels, table, rows[1:], val, training.s1_model_a(1), tmp_path)
    assert "going on after epoch 1" in capsys.readouterr().out


def test_a_training_that_blows_up_stops_with_the_epoch_and_what_to_do(faces, tmp_path):
    pixels, table, rows, val = faces
    model = small()
    model.get_layer("age").bias.assign([np.inf])
    with pytest.raises(FloatingPointError, match="epoch 1.*learning rate"):
        training.train(model, pixels, table, rows, val, training.s1_model_a(1), tmp_path)


def test_recipes_are_the_source_projects():
    a, b, c = training.s1_model_a(), training.s1_model_b(), training.s2_branched()
    assert (a.epochs, a.batch, a.age_loss, a.stages[0].learning_rate) == (100, 32, "mae", 1e-3)
    assert (b.epochs, b.stages[0].epochs, b.stages[0].unfrozen) == (90, 5, 0.0) and b.patience > 0
    assert (c.epochs, c.batch, c.age_loss, c.age_weight, c.gender_weight) == (50, 64, "mse", 0.1, 1.0)
    with pytest.raises(ValueError, match="frozen_epochs=9"):
        training.s1_model_b(epochs=9, frozen_epochs=9)

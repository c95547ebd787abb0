"""Training: batches, missing labels, stages, and a killed run that ends as an unbroken one."""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from agegender import augment, recipes, training
from agegender.models.heads import Tasks, answers

SIZE, COUNT = 32, 100
BOTH = Tasks(ages=np.array([40.0]))
ALL = Tasks("distribution", True, (0, 19, 46), ages=np.arange(90.0))


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


def small(tasks=BOTH, augmentation=augment.PRESETS["s1"]):
    """The least network with all that a training has to keep: augmentation, dropout, batch norm, a backbone."""
    keras.utils.set_random_seed(1)
    body = [layers.Conv2D(4, 3, strides=4), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(8, 3)]
    faces = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(augment.layer(augmentation, 0)(faces))
    x = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *body], name="backbone")(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return keras.Model(faces, answers(x, tasks))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone gives freed memory back at once")
def test_freed_memory_is_kept_for_the_next_step():
    import resource

    def pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"x" * 2**27  # made, and freed at once
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    pages()
    assert pages() < 2**27 / 4096 / 100


def test_every_face_of_an_epoch_is_seen_and_batches_have_one_shape(faces):
    pixels, table, rows, _ = faces
    batches = training.Batches(pixels, rows, 32, training.labels_of(table, BOTH), seed=1)
    assert len(batches) == 3 and {batches[i][0].shape for i in range(3)} == {(32, SIZE, SIZE, 3)}
    assert batches[0][0].dtype == np.uint8
    assert set(batches.order) == set(rows)
    first = batches.order.copy()
    batches.on_epoch_end()
    assert (batches.order != first).any()
    later = training.Batches(pixels, rows, 32, training.labels_of(table, BOTH), seed=1, epoch=1)
    assert (batches.order == later.order).all()  # an epoch's order doesn't depend on the ones before


def test_missing_labels_and_filled_up_batches_count_nothing(faces):
    pixels, table, _, val = faces
    model = small()
    recipe = recipes.s1_a(1)
    training.compile_model(model, recipe, recipe.stages[0], 4)
    scored = model.evaluate(
        training.Batches(pixels, val, 8, training.labels_of(table, BOTH)), return_dict=True, verbose=0
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
    history = training.train(model, pixels, table, BOTH, rows, val, recipes.s1_a(4), tmp_path)
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    scored = model.evaluate(
        training.Batches(pixels, val, 32, training.labels_of(table, BOTH)), return_dict=True, verbose=0
    )
    best = history.loc[history["val_loss"].idxmin()]
    assert scored["age_mae"] == pytest.approx(best["val_age_mae"], rel=1e-4)


tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about how TensorFlow traces a step")


@tensorflow
def test_a_stage_is_traced_once(faces, tmp_path, monkeypatch):
    pixels, table, rows, val = faces
    monkeypatch.setattr(training, "SHORT", 0)
    step, traced = keras.Model.train_step, []
    monkeypatch.setattr(keras.Model, "train_step", lambda model, data: traced.append(model) or step(model, data))
    training.train(small(ALL), pixels, table, ALL, rows, val, recipes.s1_b(epochs=3, steps=1), tmp_path)
    assert len(traced) == 2


@tensorflow
def test_a_short_stage_is_not_traced_and_ends_as_one_that_is(faces, tmp_path, monkeypatch):
    pixels, table, rows, val = faces
    recipe = recipes.modern(2).with_changes({"batch": 32, "average": 1, "augmentation": "s1"})
    step, called, ends = keras.Model.train_step, [], []
    monkeypatch.setattr(keras.Model, "train_step", lambda model, data: called.append(model) or step(model, data))
    # 3 steps an epoch: two epochs and one of averaging
    for longest, calls in ((0, 2), (5, 1 + 3), (6, 6 + 3)):
        monkeypatch.setattr(training, "SHORT", longest)
        called.clear()
        model = small(ALL)
        history = training.train(model, pixels, table, ALL, rows, val, recipe, tmp_path / str(longest))
        assert len(called) == calls and not model.run_eagerly
        ends.append([*history["loss"], *history["val_loss"], *training.predict(model, pixels, val)["age"]])
    assert np.allclose(ends[1:], ends[0], rtol=1e-4)


def test_stages_unfreeze_from_the_top_and_frozen_batch_norm_stays_as_it_was(faces, tmp_path):
    pixels, table, rows, val = faces
    recipe = recipes.s1_b(epochs=5, steps=2)
    assert [(s.epochs, s.unfrozen) for s in recipe.stages] == [(1, 0.0), (2, 0.5), (2, 1.0)]
    model = small()
    body = model.get_layer("backbone")
    for stage, share in ((0, 0.0), (1, 0.5), (2, 1.0)):
        training.compile_model(model, recipe, recipe.stages[stage], 4)
        flags = [layer.trainable for layer in body.layers]
        assert sum(flags) == round(share * len(flags)) and flags == sorted(flags)
    before = [w.copy() for w in body.get_weights()]
    frozen = recipes.Recipe("test", (recipes.Stage(1, 1e-3, 0.0),))
    training.train(model, pixels, table, BOTH, rows, val, frozen, tmp_path)
    assert all((a == b).all() for a, b in zip(before, body.get_weights()))


class Killed(Exception):
    pass


def _broken(recipe, stops, faces, tmp_path, monkeypatch, tasks=BOTH):
    """Train by `recipe` once in one go and once broken off after each of `stops` epochs; compare the two."""
    pixels, table, rows, val = faces
    monkeypatch.setattr(training, "SHORT", 0)  # as a training of more steps
    whole = small(tasks)
    expected = training.train(whole, pixels, table, tasks, rows, val, recipe, tmp_path / "whole")
    save = training._Progress.save
    for stop in (*stops, None):

        def saved(self):
            save(self)
            if len(self.history) == stop:
                raise Killed

        monkeypatch.setattr(training._Progress, "save", saved)
        model = small(tasks)
        try:
            history = training.train(model, pixels, table, tasks, rows, val, recipe, tmp_path / "broken")
        except Killed:
            assert stop is not None
        else:
            assert stop is None
    columns = [c for c in expected if c != "seconds"]
    pd.testing.assert_frame_equal(history[columns], expected[columns])
    assert all((a == b).all() for a, b in zip(whole.get_weights(), model.get_weights()))
    return expected


def test_a_run_broken_off_anywhere_ends_as_an_unbroken_one(faces, tmp_path, monkeypatch):
    # the rate is cut on the way; broken off within stages and between them
    recipe = recipes.s1_b(14, 1).with_changes({"learning_rate": 0.3, "patience": 1})
    history = _broken(recipe, (1, 7, 9), faces, tmp_path, monkeypatch)
    assert history["learning_rate"].nunique() > 2


def test_schedules_averages_and_early_stops_survive_a_kill_too(faces, tmp_path, monkeypatch):
    recipe = recipes.modern(6).with_changes({"average": 3, "augmentation": "s1"})
    history = _broken(recipe, (1, 4, 6), faces, tmp_path, monkeypatch, ALL)
    assert len(history) == 7 and history["learning_rate"].iloc[-1] == 0
    assert history["averaged"].tolist() == [False] * 6 + [True]
    assert history["learning_rate"].nunique() > 4  # warm-up, then a cosine
    stopped = recipes.s0_branched(12).with_changes({"stop_after": 2, "learning_rate": 0.3})
    history = _broken(stopped, (2, 3), faces, tmp_path / "stopped", monkeypatch, ALL)
    assert len(history) - 1 - training.best_epoch(history) == 2 and len(history) < 12


def _path() -> str:
    """PYTHONPATH with the tests and the package."""
    own = [str(Path(__file__).resolve().parents[i]) for i in (0, 1)]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


SCRIPT = """
    import sys
    import numpy as np, pandas as pd
    from agegender import recipes, training
    from test_training import BOTH, small
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (64, 32, 32, 3), dtype=np.uint8)
    table = pd.DataFrame({"file": [f"{i}" for i in range(64)], "age": np.arange(64.0), "gender": np.arange(64) % 2})
    history = training.train(small(), pixels, table, BOTH, np.arange(48), np.arange(48, 64),
                             recipes.s1_a(int(sys.argv[2])), sys.argv[1])
    print("finished", len(history))
"""


def test_kill_9_in_the_middle_then_the_same_command_goes_on(tmp_path):
    environment = {**os.environ, "PYTHONPATH": _path()}
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
    training.train(small(), pixels, table, BOTH, rows, val, recipes.s1_a(1), tmp_path)
    for change in (
        dict(recipe=recipes.s1_a(1).with_changes({"learning_rate": 2e-3})),
        dict(seed=5),
        dict(pixels=255 - pixels),
        dict(rows=rows[1:]),
    ):
        given = {**dict(pixels=pixels, rows=rows, recipe=recipes.s1_a(1), seed=0), **change}
        training.train(
            small(), given["pixels"], table, BOTH, given["rows"], val, given["recipe"], tmp_path, given["seed"]
        )
        assert "starting anew" in capsys.readouterr().out, change
    training.train(small(), pixels, table, BOTH, rows[1:], val, recipes.s1_a(1), tmp_path)
    assert "going on after epoch 1" in capsys.readouterr().out


def test_a_training_that_blows_up_stops_with_the_epoch_and_what_to_do(faces, tmp_path):
    pixels, table, rows, val = faces
    model = small()
    model.get_layer("age").bias.assign([np.inf])
    with pytest.raises(FloatingPointError, match="epoch 1.*learning rate"):
        training.train(model, pixels, table, BOTH, rows, val, recipes.s1_a(1), tmp_path)


def test_learning_rates_follow_their_schedules():
    def rates(recipe, steps, at):
        rate = training.learning_rate(recipe, recipe.stages[0], steps)
        return [float(rate(step)) for step in at]

    assert rates(recipes.s4(), 100, (0, 5000, 10_000)) == pytest.approx([1e-3, 0.8e-3, 0.64e-3])
    assert rates(recipes.s0(), 100, (0, 999, 1000, 2000)) == pytest.approx([0.01, 0.01, 0.005, 0.0025])
    modern = recipes.modern(10).with_changes({"warmup": 2.0})
    assert rates(modern, 100, (0, 100, 200, 600, 1000)) == pytest.approx([0, 5e-4, 1e-3, 5e-4, 0], abs=1e-6)
    assert training.learning_rate(recipes.s1_a(), recipes.s1_a().stages[0], 100) == 1e-3


def test_the_average_is_that_of_the_last_weights(faces, tmp_path, monkeypatch):
    pixels, table, rows, val = faces
    seen, ended = [], training._Progress.on_epoch_end

    def watched(self, epoch, logs=None):
        ended(self, epoch, logs)
        seen.append(self.model.get_weights())

    monkeypatch.setattr(training._Progress, "on_epoch_end", watched)
    recipe = recipes.s1_a(5).with_changes({"average": 3})
    model = small()
    training.train(model, pixels, table, BOTH, rows, val, recipe, tmp_path)
    assert len(seen) == 6
    for i, weight in enumerate(model.weights):
        if "moving" not in weight.path:  # the statistics of batch norm are estimated anew, the rest is the mean
            mean = np.mean([epoch[i] for epoch in seen[2:5]], axis=0)
            assert np.allclose(seen[5][i], mean, atol=1e-5), weight.path


def test_the_distribution_loss_is_the_cross_entropy_with_a_normal_curve():
    said = np.random.default_rng(0).dirichlet(np.ones(117), 3).astype("float32")
    age = np.array([[0.0], [30.0], [90.5]], "float32")
    want = []
    for a, p in zip(age[:, 0], said):
        curve = np.exp(-((np.arange(117) - a) ** 2) / (2 * 2.0**2))
        want.append(-(curve / curve.sum() * np.log(p + 1e-7)).sum())
    got = keras.ops.convert_to_numpy(training.AgeDistributionLoss(2.0, reduction=None)(age, said))
    assert got == pytest.approx(np.array(want), rel=1e-4)


@pytest.mark.parametrize("tasks", [Tasks(gender=False), Tasks(age=""), Tasks("", False, (0, 30, 60)), ALL],
                         ids=["age", "gender", "groups", "all"])  # fmt: skip
def test_any_questions_alone_or_together(faces, tmp_path, tasks):
    pixels, table, rows, val = faces
    model = small(tasks)
    history = training.train(model, pixels, table, tasks, rows, val, recipes.modern(1), tmp_path)
    for name in tasks.outputs:
        if name != "age_distribution":
            assert np.isfinite(history[f"val_{name}_{'mae' if name == 'age' else 'accuracy'}"]).all()
    said = training.predict(model, pixels, val, flip=True)
    assert set(said) == set(tasks.outputs) and all(len(values) == len(val) for values in said.values())
    mirrored = training.predict(model, pixels[:, :, ::-1], val)
    for name, values in training.predict(model, pixels, val).items():
        assert said[name] == pytest.approx((values + mirrored[name]) / 2, abs=1e-4)


def test_asked_and_answered_must_agree(faces, tmp_path):
    pixels, table, rows, val = faces
    with pytest.raises(ValueError, match="the model answers age, gender, and the tasks are gender"):
        training.train(small(), pixels, table, Tasks(age=""), rows, val, recipes.s1_a(1), tmp_path)


def test_mixed_precision_trains_and_answers_in_float32(faces, tmp_path):
    pixels, table, rows, val = faces
    try:
        training.prepare("mixed_bfloat16")
        model = small(ALL)
        history = training.train(model, pixels, table, ALL, rows, val, recipes.modern(2), tmp_path)
    finally:
        training.prepare("float32")
    assert np.isfinite(history["val_loss"]).all()
    assert {str(tensor.dtype) for tensor in model.output.values()} == {"float32"}
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    assert model.get_layer("augmentation").layers[0].compute_dtype == "float32"
    assert any(layer.compute_dtype == "bfloat16" for layer in model.layers)
    with pytest.raises(ValueError, match="precision='float8'"):
        training.prepare("float8")


OTHER = """
    import sys
    import keras, numpy as np, pandas as pd
    from test_training import ALL, BOTH, small
    from agegender import augment, provenance, recipes, training
    assert keras.backend.backend() == sys.argv[4]
    training.prepare(devices=int(sys.argv[2]))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (64, 32, 32, 3), dtype=np.uint8)
    table = pd.DataFrame({"file": [f"{i}" for i in range(64)], "age": np.arange(64.0), "gender": np.arange(64) % 2})
    rows, val = np.arange(48), np.arange(48, 64)

    def answer(model):
        ages = training.predict(model, pixels, val)["age"].round(3)
        print("answer", *ages, len(provenance.devices()))

    if sys.argv[3] == "compare":  # nothing random
        model = small(BOTH, augment.PRESETS["none"])
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        training.train(model, pixels, table, BOTH, rows, val, recipes.s1_a(2), sys.argv[1])
        assert {len(weight.value.sharding.device_set) for weight in model.weights} == {int(sys.argv[2])}
        sys.exit(answer(model))

    # everything augmentation can do, in one step of training; only JAX compiles all of it with XLA
    everything = augment.Augmentation(True, 10., .1, .1, .2, .2, 1., .05, .2, "reflect")
    model = small(ALL, everything)
    training.train(model, pixels, table, ALL, rows, val, recipes.modern(1).with_changes({"average": 0}), sys.argv[1])
    if keras.backend.backend() == "jax":
        assert model.jit_compile, "XLA is off"
    scored = model.evaluate(training.Batches(pixels, val, 16, training.labels_of(table, ALL)), return_dict=True, verbose=0)
    said = training.predict(model, pixels, val)
    truth = table.iloc[val]
    assert abs(scored["age_mae"] - np.abs(said["age"] - truth["age"]).mean()) < 1e-3
    assert abs(scored["gender_accuracy"] - ((said["gender"] > 0.5) == truth["gender"]).mean()) < 1e-6
    right = said["age_group"].argmax(1) == ALL.group_of(truth["age"])
    assert abs(scored["age_group_accuracy"] - right.mean()) < 1e-6
    answer(model)
"""


def _elsewhere(folder, backend="jax", devices=1, part="compare", **variables):
    """Train in another process, on another backend; the ages it predicts and the devices it has."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"not at hand: {backend}" + (" (make test EXTRAS=jax installs it)" if backend == "jax" else ""))
    environment = {**os.environ, "KERAS_BACKEND": backend, **variables, "PYTHONPATH": _path()}
    command = [sys.executable, "-c", textwrap.dedent(OTHER), str(folder), str(devices), part, backend]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    *ages, there = done.stdout.split("answer ")[1].split()
    return np.array(ages, float), int(there)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_backend_trains_and_evaluate_is_numpy_on_predict(backend, tmp_path):
    ages, _ = _elsewhere(tmp_path, backend, part="everything")
    assert np.isfinite(ages).all() and (ages > 0).all()


def test_two_devices_train_as_one_does(tmp_path):
    one, there = _elsewhere(tmp_path / "one")
    assert there == 1
    two, there = _elsewhere(tmp_path / "two", devices=2, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert there == 2 and two == pytest.approx(one, abs=0.05)


def test_devices_that_are_not_there_are_an_error():
    with pytest.raises(ValueError, match="devices=99: (this machine has|Keras spreads batches over devices on JAX alone)"):
        training.prepare(devices=99)

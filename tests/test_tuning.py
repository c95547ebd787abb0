"""Tuning: spaces hold whole recipes, searches resume and tell what failed, the winner is read back as it was."""

from __future__ import annotations

import json
from types import SimpleNamespace

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from keras import layers

from agegender import figures, recipes, training, tuning
from agegender.dataset import Dataset
from agegender.models.heads import answers
from agegender.tasks import Tasks

SIZE, COUNT, TRAIN = 32, 60, 44
BOTH, GROUPS = Tasks(ages=np.array([40.0])), Tasks("", False, (0, 30, 60))
SMALL = {"model_a": {"width": 2}, "model_b": {"weights": "none", "alpha": 0.35}, "branched": {"width": 4}}


def faces(size: int = SIZE) -> Dataset:
    """Random pixels with random labels, some of them unknown."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "file": [f"{i:03d}.jpg" for i in range(COUNT)],
        "age": rng.integers(0, 90, COUNT).astype(float),
        "gender": pd.array(rng.integers(0, 2, COUNT), dtype="Int8"),
        "race": pd.array([pd.NA] * COUNT, dtype="Int8"),
        "group": np.arange(COUNT),
        "fold": ["train"] * TRAIN + ["val"] * (COUNT - TRAIN),
    })  # fmt: skip
    table.loc[[3, COUNT - 1], "age"] = np.nan
    table.loc[[5, COUNT - 2], "gender"] = pd.NA
    pixels = rng.integers(0, 255, (COUNT, size, size, 3), dtype=np.uint8)
    return Dataset(None, SimpleNamespace(pixels=pixels), None, table, "data", "split")


@pytest.fixture(scope="module")
def dataset():
    return faces()


def searched(dataset, network="model_a", tasks=BOTH, epochs=2, **more):
    base = "modern_finetune" if network == "model_b" else "modern"
    return tuning.Space(network, base, epochs, dataset, tasks, SMALL[network], **more)


def sampled(space, seed):
    """Values of the space by lot, as keras-tuner draws them."""
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_score", "min"), max_trials=99, seed=seed, hyperparameters=space.hyperparameters()
    )  # fmt: skip
    hp = space.hyperparameters()
    hp.values = oracle._random_values()
    return hp


@pytest.mark.parametrize("network", tuning.BUILD)
def test_whatever_a_space_gives_is_a_recipe_and_a_network(network):
    there = searched(faces(64 if network == "branched" else SIZE), network)
    seen = []
    for seed in range(1, 13):
        hp = sampled(there, seed)
        recipe = there.recipe(hp)
        assert recipe == recipes.read(there.name_of_base, 2, json.loads(json.dumps(there.changes_of(hp))))
        seen.append(recipe)
        if network != "model_a" and seed > 3:
            continue  # building takes a second, and little of it varies
        keras.backend.clear_session()
        model = there.build(hp)
        assert set(model.output) == set(there.asked(recipe).outputs)
        training.compile_model(model, recipe, recipe.stages[0], 3)
    assert {r.age for r in seen} == {"regression", "distribution"} and len({r.batch for r in seen}) == 3
    assert not any("width" in r.model for r in seen)  # given, so not searched
    if network == "model_b":
        assert len({r.stages[0].unfrozen for r in seen}) > 2


def test_what_is_not_asked_or_already_given_is_not_searched(dataset):
    names = searched(dataset, tasks=Tasks("", True, ages=BOTH.ages)).table().index
    assert "age" not in names and "age_weight" not in names and "label_smoothing" in names and "width" not in names
    free = tuning.Space("model_a", "s1_a", 2, dataset, BOTH, {"head": "linear"})
    assert "width" in free.table().index and "head" not in free.table().index
    assert "weight_decay" not in free.table().index  # Adam has none
    assert free.table().loc["strength", "only where"] == "augmentation is s1 or modern"


def test_unusable_spaces_are_named(dataset):
    for wrong, words in [
        (dict(network="model_c"), "network='model_c': one of model_a"),
        (dict(recipe="s1_b"), "'s1_b' has 2 stages"),
        (dict(recipe="best"), "recipe='best': a search starts from one of"),
        (dict(build={"wide": 3}), "build: model_a has no wide"),
    ]:
        given = dict(network="model_a", recipe="modern", epochs=2, dataset=dataset, tasks=BOTH) | wrong
        with pytest.raises(ValueError, match=words):
            tuning.Space(**given)


@pytest.mark.parametrize("tasks", [BOTH, GROUPS, Tasks("", True)], ids=["both", "groups", "gender"])
def test_score_is_what_numpy_makes_of_the_predictions(dataset, tmp_path, tasks):
    there = counted(dataset, tasks=tasks, epochs=2)
    recipe = there.recipe(sampled(there, 1))
    model, asked = there.network_of(recipe), there.asked(recipe)
    read = {}

    class Reader(keras.callbacks.Callback):  # where keras-tuner's own callbacks stand
        def on_epoch_end(self, epoch, logs=None):
            read[epoch] = logs["val_score"], training.predict(self.model, dataset.pixels, dataset.rows("val"))

    told = there.fit(sampled(there, 1), model, [Reader()], epochs=2)
    train, val = dataset.table[:TRAIN], dataset.table[TRAIN:]
    for epoch, (score, said) in read.items():
        parts = []
        if asked.age:
            guess = np.nanmean(np.abs(val["age"] - np.nanmedian(train["age"])))
            parts.append(np.nanmean(np.abs(said["age"] - val["age"])) / guess)
        if asked.gender:
            known = val["gender"].notna().to_numpy()
            truth = val["gender"][known].to_numpy(float)
            common = float(train["gender"].mean() > 0.5)
            parts.append(np.mean((said["gender"][known] > 0.5) != truth) / np.mean(truth != common))
        if asked.groups:
            known = val["age"].notna().to_numpy()
            truth = np.digitize(val["age"][known], (30, 60))
            common = np.bincount(np.digitize(train["age"].dropna(), (30, 60))).argmax()
            parts.append(np.mean(said["age_group"][known].argmax(1) != truth) / np.mean(truth != common))
        assert score == pytest.approx(np.mean(parts), rel=1e-4)
    assert told["val_score"] == min(score for score, _ in read.values()) and told["epochs"] == 2
    assert told["best_epoch"] == 1 + np.argmin([score for score, _ in read.values()])


def test_a_guess_that_cannot_be_beaten_is_left_out(dataset):
    alike = faces()
    alike.table["gender"] = pd.array([1] * COUNT, dtype="Int8")
    assert set(tuning.guesses(alike, BOTH)) == {"age"}
    with pytest.raises(ValueError, match="nothing to tune by"):
        tuning.guesses(alike, Tasks("", True))


def test_a_training_that_diverges_ends_with_words():
    callback = tuning.Score({"age": 10.0})
    with pytest.raises(FloatingPointError, match="epoch 3: val_loss is nan"):
        callback.on_epoch_end(2, {"val_loss": float("nan"), "val_age_mae": 3.0})


def tiny(size, tasks, augmentation, seed=0, width=2, momentum=0.9, **_):
    """A network that is quick to trace, in place of model A."""
    keras.utils.set_random_seed(seed)
    pictures = keras.Input((size, size, 3), dtype="uint8")
    x = layers.Conv2D(width, 3, strides=8)(layers.Rescaling(1 / 255)(pictures))
    x = layers.Flatten()(layers.BatchNormalization(momentum=momentum)(x))
    return keras.Model(pictures, answers(x, tasks))


class Counted(tuning.Space):
    """A space with a tiny network, that notes which trials it trains, and breaks as asked."""

    def network_of(self, recipe):
        training.prepare(self.precision, self.devices)
        return tiny(SIZE, self.asked(recipe), recipe.augmentation, self.seed, **{**self.fixed, **recipe.model})

    def __init__(self, *args, breaks=None, **more):
        super().__init__(*args, **more)
        self.breaks, self.ran = breaks or {}, []

    def fit(self, hp, model, *args, **more):
        self.ran.append(more.get("initial_epoch", 0))
        if error := self.breaks.get(len(self.ran)):
            raise error
        return super().fit(hp, model, *args, **more)


def counted(dataset, breaks=None, epochs=1, tasks=BOTH, **more):
    return Counted("model_a", "modern", epochs, dataset, tasks, {"width": 2}, breaks=breaks, **more)


@pytest.mark.parametrize("kind", ["bayesian", "hyperband"])
def test_a_killed_search_goes_on_with_the_trials_it_has(dataset, tmp_path, kind, capsys):
    first = counted(dataset, {2: KeyboardInterrupt()})  # nothing catches it: the disk holds what a kill leaves
    with pytest.raises(KeyboardInterrupt):
        tuning.search(first, kind, 2, tmp_path)
    assert len(first.ran) == 2
    again = counted(dataset)
    tuner = tuning.search(again, kind, 2, tmp_path)
    said = capsys.readouterr().out
    assert "going on after 1 trial" in said and said.count("completed, score") == 3  # kept and once more, then the second
    assert len(again.ran) == 1  # the second alone
    whole = tuning.trials(tuning.search(counted(dataset), kind, 2, tmp_path / "unbroken"))
    table = tuning.trials(tuner)
    assert table["status"].tolist() == ["COMPLETED"] * 2
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), whole.drop(columns="seconds"), rtol=1e-4)
    once_more = counted(dataset)
    assert len(tuning.trials(tuning.search(once_more, kind, 2, tmp_path))) == 2 and not once_more.ran
    other = counted(dataset, seed=1)
    tuning.search(other, kind, 1, tmp_path)
    assert len(other.ran) == 1  # another seed is another search


def test_hyperband_goes_on_from_weights_and_optimizer(dataset, tmp_path):
    there = counted(dataset, epochs=3)
    assert tuning.hyperband_trials(3) == 6
    tuner = tuning.search(there, "hyperband", 4, tmp_path)
    table = tuning.trials(tuner)
    last = table.iloc[3]
    assert there.ran == [0, 0, 0, 1] and last["epochs"] == 3 and table["epochs"].tolist()[:3] == [1, 1, 1]
    before = table.set_index("trial").loc[last["goes_on"]]
    assert before["score"] == table["score"][:3].min() and last["setting"] == before.name

    # what it took over: weights and optimiser, as the trial before had left them
    identity = list(tuner.oracle.start_order)[int(last["goes_on"]) - 1]
    kept = tuner.get_trial_dir(identity) + "/" + tuning.CHECKPOINT
    hp = tuner.oracle.trials[identity].hyperparameters
    one, two = there.build(hp), there.build(hp)
    taken = {}

    class Taken(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            taken["steps"] = int(self.model.optimizer.iterations)
            taken["weights"] = self.model.get_weights()
            taken["moments"] = sum(float(np.abs(np.asarray(v)).sum()) for v in self.model.optimizer.variables[2:])

    tuning.Space.fit(there, hp, one, [Taken()], epochs=2, initial_epoch=1, resume=kept)
    two.load_weights(kept)
    recipe = there.recipe(hp)
    assert taken["steps"] == -(-len(dataset.training_rows(recipe.balance, 0)) // recipe.batch) and taken["moments"] > 0
    assert all(np.array_equal(a, b) for a, b in zip(taken["weights"], two.get_weights()))


def test_failed_trials_are_shown_and_without_another_it_is_an_error(dataset, tmp_path, capsys):
    one = counted(dataset, {1: ValueError("too wide a net\nfor this river")})
    tuner = tuning.search(one, "bayesian", 2, tmp_path)
    table = tuning.trials(tuner)
    assert table["status"].tolist() == ["FAILED", "COMPLETED"] and np.isnan(table["score"][0])
    assert "too wide a net" in table["message"][0] and table["message"][1] == ""
    assert "failed, ValueError: too wide a net" in capsys.readouterr().out
    assert "too wide" in tuning.failures(table).loc[1, "failed with"]
    assert list(tuning.shown(table)) == ["trial 2"] and "1 failed" in tuning.search_words(tuner)
    assert tuning.winner(tuner)["found"]["trial"] == 2
    assert "1 failed" in tuning.trial_words(table)

    none = counted(dataset, {n: OSError(f"no disk {n}") for n in range(1, 9)})
    tuner = tuning.search(none, "bayesian", 4, tmp_path / "none")
    assert len(none.ran) == 4  # keras-tuner alone would have stopped at three
    with pytest.raises(RuntimeError, match="not one of 4 trials completed .* said: OSError: no disk 1"):
        tuning.winner(tuner)


def test_a_state_cut_off_in_the_middle_starts_anew(dataset, tmp_path, capsys):
    tuning.search(counted(dataset), "bayesian", 1, tmp_path)
    state = next(tmp_path.glob(".search/*/oracle.json"))
    state.write_text(state.read_text()[:50])
    again = counted(dataset)
    tuning.search(again, "bayesian", 1, tmp_path)
    assert len(again.ran) == 1 and "broken: starting anew" in capsys.readouterr().out


def test_the_winner_is_a_recipe_that_trains(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    there = counted(dataset, changes={"flip_test": False, "model": {"momentum": 0.8}})
    tuner = tuning.search(there, "bayesian", 2, tmp_path)
    found = tuning.winner(tuner)
    tuning.write(found, tmp_path / "runs" / "07")
    recipe = recipes.read("runs/07")
    best = tuning.trials(tuner)["score"].idxmin()
    assert recipe == there.recipe(tuner.oracle.trials[tuner.oracle.start_order[best]].hyperparameters)
    assert recipe.model["momentum"] == 0.8 and "dropout" in recipe.model and not recipe.flip_test
    further = recipes.read("runs/07", 7, {"augmentation": {"flip": False}, "model": {"momentum": 0.5}})
    assert further.epochs == 7 and further.model == {**recipe.model, "momentum": 0.5}
    assert further.augmentation.rotation == recipe.augmentation.rotation

    done = there.trained(recipe, tmp_path / "winner")
    assert len(done.predictions) == COUNT - TRAIN and done.history["kept"].sum() == 1
    again = there.trained(recipe, tmp_path / "winner")
    pd.testing.assert_frame_equal(done.predictions, again.predictions)
    gain = tuning.comparison.differences({"base": done, "winner": again}, "val")
    assert (gain["value"] == 0).all() and "no more than chance" in tuning.gain_words(gain)


def table_of(count, informative=True):
    rng = np.random.default_rng(0)
    rate, kind = 10 ** rng.uniform(-4, -2, count), rng.choice(["mae", "mse"], count)
    score = 0.5 + 0.1 * (np.log10(rate) + 3) ** 2 + 0.002 * rng.normal(size=count)
    return pd.DataFrame({
        "trial": np.arange(1, count + 1), "status": "COMPLETED", "score": score if informative else rng.permutation(score),
        "epochs": 3.0, "setting": np.arange(1, count + 1), "learning_rate": rate, "age": kind, "message": "",
        "strength": [None if k == "mae" else 1.0 for k in kind],
    })  # fmt: skip


def test_importance_finds_what_matters_and_admits_what_it_cannot():
    names = ["learning_rate", "age", "strength"]
    table = table_of(40)
    found = tuning.importance(table, names)
    assert found["hyperparameter"].iloc[0] == "learning_rate" and found["foreseen"].iloc[0] > 0.5
    assert found["low"].iloc[0] > found["high"].iloc[1:].max() and set(found["hyperparameter"]) == set(names)
    assert tuning.importance_words(found, table).startswith("Most to the score did learning rate")
    noise = table_of(40, informative=False)
    assert "can't be told from 40 settings" in tuning.importance_words(tuning.importance(noise, names), noise)
    few = table_of(3)
    assert "3 settings are too few" in tuning.importance_words(tuning.importance(few, names), few)
    some = table_of(15)
    assert "15 settings" in tuning.importance_words(tuning.importance(some, names), some)


def test_figures_say_what_they_show(monkeypatch):
    alts = []
    monkeypatch.setattr(figures, "show", lambda figure, alt, faces=False: alts.append(alt))
    table = table_of(30)
    table.loc[5, ["status", "score", "message"]] = ["FAILED", np.nan, "ValueError: x"]
    names = ["learning_rate", "age", "strength"]
    found = tuning.importance(table, names)
    figures.tuning_trials(table, tuning.trial_words(table))
    figures.tuning_importance(found, tuning.importance_words(found, table))
    figures.tuning_scores(table, names, ["learning_rate"], "Three")
    assert "Scores of 29 trials" in alts[0] and "1 failed" in alts[0]
    assert "learning rate " in alts[1] and "mse 0." in alts[2] and len(alts) == 3
    figures.tuning_importance(found.assign(foreseen=-0.1), "Nothing")  # a sentence instead
    assert len(alts) == 3


def test_precision_outlives_keras_tuner(dataset, tmp_path):
    there = counted(dataset, precision="mixed_bfloat16")
    try:
        tuning.search(there, "bayesian", 1, tmp_path)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"  # though every trial clears the session
    finally:
        training.prepare("float32")

"""Tuning: keras-tuner searches a space of recipes on validation faces; the winner is a recipe like any other."""

from __future__ import annotations

import contextlib
import hashlib
import io
import inspect
import json
import math
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Mapping

import keras
import keras_tuner
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GroupKFold

from agegender import comparison, labels, metrics, predictions, provenance, recipes, training
from agegender.augment import PRESETS
from agegender.dataset import Dataset
from agegender.models import branched, model_a, model_b
from agegender.places import written_whole
from agegender.recipes import RECIPES, Recipe
from agegender.tasks import Tasks

BUILD = {"model_a": model_a.build, "model_b": model_b.build, "branched": branched.build}
FEW = 20  # settings tried: with fewer, what mattered is mostly chance
FOREST = 5  # settings tried: with fewer, no forest is grown at all
CHECKPOINT = "checkpoint.weights.h5"  # keras-tuner's name for the weights of a trial's best epoch


# The space


def choose(hp, network: str, base: Recipe, tasks: Tasks, build: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Changes to `base` (see ``Recipe.with_changes``), drawn from `hp`: the search space of `network`, a key of BUILD.

    What only matters to a question or an optimiser that is not there is left out; so are arguments of the network
    that `build` names, which stay as given. Floats are rounded, so that the recipe in print is the one that ran.
    """

    def number(name: str, low: float, high: float, step: float | None = None) -> float:
        value = hp.Float(name, low, high, step=step, sampling=None if step else "log")
        return _rounded(value or 0.0)  # keras-tuner gives None where a condition is not met

    rate = base.stages[0].learning_rate
    found: dict[str, Any] = {
        "learning_rate": number("learning_rate", _rounded(rate / 10), _rounded(rate * 5)),
        "batch": hp.Choice("batch", [16, 32, 64]),
    }
    if base.optimizer == "adamw":
        found["weight_decay"] = number("weight_decay", 0.001, 0.1)
    if tasks.age:
        asked = hp.Choice("age", ["mae", "mse", "huber", "distribution"])
        found["age"] = "distribution" if asked == "distribution" else "regression"
        found |= {"age_loss": asked} if asked != "distribution" else {}
        found["age_weight"] = number("age_weight", 0.02, 0.5)
    if tasks.gender or tasks.groups:
        found["label_smoothing"] = number("label_smoothing", 0.0, 0.1, 0.05)
    found["balance"] = number("balance", 0.0, 1.0, 0.25)
    kind = hp.Choice("augmentation", ["none", "s1", "modern"])
    with hp.conditional_scope("augmentation", ["s1", "modern"]):
        strength = number("strength", 0.5, 1.5, 0.25)
    limits = asdict(PRESETS[kind].scaled(strength))
    found["augmentation"] = {k: _rounded(v) if isinstance(v, float) else v for k, v in limits.items()}

    arguments: dict[str, Any] = {}

    def argument(name: str, ask, *how) -> None:
        if name not in build:
            arguments[name] = ask(name, *how)

    widths = inspect.signature(BUILD[network]).parameters.get("width")
    if widths:
        argument("width", hp.Choice, [widths.default // 2, widths.default, widths.default * 3 // 2])
    if network == "model_a":
        argument("pooling", hp.Choice, ["flatten", "average"])
        argument("head", hp.Choice, ["dense", "linear", "s2"])
        argument("dropout", number, 0.0, 0.4, 0.1)
        argument("head_dropout", number, 0.0, 0.6, 0.1)
    elif network == "model_b":
        argument("head", hp.Choice, ["linear", "dense", "additive"])
        argument("head_dropout", number, 0.0, 0.6, 0.1)
        argument("momentum", hp.Choice, [0.8, 0.9, 0.99])
        found["unfrozen"] = number("unfrozen", 0.25, 1.0, 0.25)
    else:
        argument("momentum", hp.Choice, [0.8, 0.9, 0.99])
    return found | ({"model": arguments} if arguments else {})


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


MEANING = {
    "learning_rate": "highest rate of the optimiser",
    "batch": "faces a step",
    "weight_decay": "of AdamW",
    "age": "loss on the age in years, or a distribution over ages",
    "age_weight": "weight of the age in years in the loss",
    "label_smoothing": "of gender and age groups",
    "balance": "oversampling of rare ages; 1: every band alike",
    "augmentation": "which preset",
    "strength": "the preset's limits times this",
    "width": "filters of the first block",
    "pooling": "the last map laid flat, or averaged",
    "head": "layers between features and answers",
    "dropout": "after each block",
    "head_dropout": "in the head",
    "momentum": "of batch norm",
    "unfrozen": "share of the backbone that trains",
}


class Space(keras_tuner.HyperModel):
    """What is searched: `network` (a key of BUILD) on the faces of `dataset`, round the recipe called `recipe`.

    `recipe` is a key of RECIPES with one stage, changed by `changes` and of `epochs` epochs; `build`: arguments of
    the network that stay as given. Every trial starts from the same seed, and sees the training faces and the
    validation faces only.
    """

    def __init__(
        self, network: str, recipe: str, epochs: int, dataset: Dataset, tasks: Tasks, build: Mapping[str, Any] = {},
        changes: Mapping[str, Any] = {}, seed: int = 0, precision: str = "float32", devices: int = 1,
    ):  # fmt: skip
        super().__init__()
        if network not in BUILD:
            raise ValueError(f"network={network!r}: one of {', '.join(BUILD)} would be right")
        if recipe not in RECIPES:
            raise ValueError(f"recipe={recipe!r}: a search starts from one of {', '.join(RECIPES)}")
        if epochs < 1:
            raise ValueError(f"epochs={epochs}: at least 1 would be right")
        if known := set(build) - set(inspect.signature(BUILD[network]).parameters):
            raise ValueError(f"build: {network} has no {', '.join(sorted(known))}")
        self.network, self.name_of_base, self.epochs = network, recipe, epochs
        self.dataset, self.tasks, self.fixed, self.changes = dataset, tasks, dict(build), dict(changes)
        self.seed, self.precision, self.devices = seed, precision, devices
        self.base = recipes.read(recipe, epochs, changes)
        if len(self.base.stages) != 1:
            raise ValueError(
                f"recipe={recipe!r} has {len(self.base.stages)} stages: the space has one learning rate, and needs one "
                "stage (modern and modern_finetune have it)"
            )
        self.guess = guesses(dataset, tasks)

    def changes_of(self, hp) -> dict[str, Any]:
        """All changes to the recipe called `name_of_base` for the values in `hp`."""
        found = choose(hp, self.network, self.base, self.tasks, self.fixed)
        model = {**self.changes.get("model", {}), **found.get("model", {})}
        return {**self.changes, **found, **({"model": model} if model else {})}

    def recipe(self, hp) -> Recipe:
        """The recipe for the values in `hp`."""
        return recipes.read(self.name_of_base, self.epochs, self.changes_of(hp))

    def network_of(self, recipe: Recipe) -> keras.Model:
        """The network, with the first weights of the seed, as `recipe` wants it."""
        # keras-tuner clears Keras' session before each trial, which sets the precision back
        training.prepare(self.precision, self.devices)
        return BUILD[self.network](
            size=self.dataset.pixels.shape[1], tasks=self.asked(recipe), augmentation=recipe.augmentation,
            seed=self.seed, **{**self.fixed, **recipe.model},
        )  # fmt: skip

    def asked(self, recipe: Recipe) -> Tasks:
        """The questions in the form that `recipe` wants them: age as a number, or as a distribution."""
        age = recipe.age if self.tasks.age else ""
        return Tasks(age, self.tasks.gender, self.tasks.groups, self.tasks.ages)

    def build(self, hp) -> keras.Model:
        return self.network_of(self.recipe(hp))

    def fit(self, hp, model, callbacks=(), epochs=0, initial_epoch=0, resume=None, **_) -> dict[str, float]:
        """Train a trial's `model` up to epoch `epochs` (0: all), from the weights and optimiser in `resume` where given.

        A dict, not a History: keras-tuner keeps of a History only what the best epoch's logs hold.
        """
        recipe, pixels, began = self.recipe(hp), self.dataset.pixels, time.perf_counter()
        asked = training.labels_of(self.dataset.table, self.asked(recipe))
        rows = self.dataset.training_rows(recipe.balance, self.seed)
        batches = training.Batches(pixels, rows, recipe.batch, asked, seed=self.seed, epoch=initial_epoch)
        training.compile_model(model, recipe, recipe.stages[0], len(batches))
        model.run_eagerly = training.is_short(((epochs or self.epochs) - initial_epoch) * len(batches))
        model.optimizer.build(model.trainable_variables)
        if resume:  # again, as keras-tuner did before there was an optimiser to take its part
            model.load_weights(resume)
        history = model.fit(
            batches,
            validation_data=training.Batches(pixels, self.dataset.rows("val"), recipe.batch, asked),
            epochs=epochs or self.epochs,
            initial_epoch=initial_epoch,
            shuffle=False,
            verbose=0,
            callbacks=[training._Names(), Score(self.guess), *callbacks],  # the last read what the first write
        ).history
        best = int(np.argmin(history["val_score"]))
        return {
            **{name: float(values[best]) for name, values in history.items()},
            "best_epoch": initial_epoch + best + 1,
            "epochs": epochs or self.epochs,
            "seconds": time.perf_counter() - began,
        }

    def trained(self, recipe: Recipe, folder: Path) -> comparison.Finished:
        """A whole training by `recipe`, as notebooks 03 to 05 do it, with its predictions for the validation faces."""
        keras.backend.clear_session()
        model, asked, data = self.network_of(recipe), self.asked(recipe), self.dataset
        rows, val = data.training_rows(recipe.balance, self.seed), data.rows("val")
        history = training.train(model, data.pixels, data.table, asked, rows, val, recipe, folder, self.seed)
        said = training.predict(model, data.pixels, val, flip=recipe.flip_test)
        return comparison.Finished(folder, predictions.table(data.table.iloc[val], said), history, {})

    def hyperparameters(self) -> keras_tuner.HyperParameters:
        """The whole space, conditional parts too."""
        hp = keras_tuner.HyperParameters()
        choose(hp, self.network, self.base, self.tasks, self.fixed)
        return hp

    def table(self) -> pd.DataFrame:
        """The space for print: one row per hyperparameter, its values, when it counts, what it is."""
        rows = []
        for part in self.hyperparameters().space:
            config = part.get_config()
            if "values" in config:
                values = ", ".join(str(value) for value in config["values"])
            elif config["step"] is None:
                values = f"{config['min_value']:g} to {config['max_value']:g}, logarithmic"
            else:
                values = f"{config['min_value']:g} to {config['max_value']:g}, in steps of {config['step']:g}"
            when = "; ".join(f"{c.name} is {' or '.join(map(str, c.values))}" for c in part.conditions)
            rows.append((part.name, values, when, MEANING[part.name]))
        return pd.DataFrame(rows, columns=["hyperparameter", "values", "only where", "meaning"]).set_index("hyperparameter")

    def words(self, recipe: Recipe) -> dict[str, str]:
        """What `recipe` does here, by step, for print."""
        given = {**self.fixed, **recipe.model}
        said = recipe.words(self.asked(recipe).outputs)
        return said | {"network": ", ".join(f"{name} {value}" for name, value in given.items()) or "as built"}

    def digest(self) -> str:
        """Names data, split, space, base recipe and code: what one trial is comparable within."""
        config = json.dumps(self.hyperparameters().get_config(), sort_keys=True, default=str)
        how = (
            self.network, asdict(self.base), sorted(self.fixed.items()), repr(self.tasks), self.dataset.pixels.shape,
            self.dataset.digest, self.dataset.split_digest, self.seed, self.precision, self.devices,
            keras.backend.backend(), keras.__version__, keras_tuner.__version__, config,
        )  # fmt: skip
        digest = hashlib.sha256(repr(how).encode())
        package = Path(__file__).parent
        modules = [package / name for name in ("tuning.py", "training.py", "recipes.py", "augment.py")]
        for path in [*modules, *sorted(package.glob("models/*.py"))]:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


# The score


def guesses(dataset: Dataset, tasks: Tasks) -> dict[str, float]:
    """Errors on validation faces of a guesser who never looks, by output: always the training faces' median age
    (mean error in years), commoner gender and commonest age group (shares wrong).

    A question without labels, or to which the guesser is always right, is left out; if none is left, ValueError.
    """
    train, val = (dataset.table[dataset.table["fold"] == fold] for fold in ("train", "val"))
    found = {}
    if tasks.age:
        found["age"] = float((val["age"] - train["age"].median()).abs().mean())
    answers = {"gender": lambda table: table["gender"]} if tasks.gender else {}
    if tasks.groups:
        answers["age_group"] = lambda table: pd.Series(tasks.group_of(table["age"]))
    for name, of in answers.items():
        common, given = of(train).mode(), of(val).dropna()
        if len(common) and len(given):
            found[name] = float((given != common.iloc[0]).mean())
    found = {name: error for name, error in found.items() if np.isfinite(error) and error > 0}
    if not found:
        raise ValueError("no validation face has a label that tells a good answer from a guess: nothing to tune by")
    return found


def score(logs: Mapping[str, float], guess: Mapping[str, float]) -> float:
    """`val_score`: validation error as a share of the guesser's, mean over the questions in `guess`; lower is better.

    Made of metrics alone, so that it means the same whatever the losses, their weights and the label smoothing.
    """
    errors = {
        "age": lambda: logs["val_age_mae"],
        "gender": lambda: 1 - logs["val_gender_accuracy"],
        "age_group": lambda: 1 - logs["val_age_group_accuracy"],
    }
    return float(np.mean([errors[name]() / error for name, error in guess.items()]))


class Score(keras.callbacks.Callback):
    """Puts `val_score` into an epoch's logs, for all callbacks after it; ends a training that diverged."""

    def __init__(self, guess: Mapping[str, float]):
        super().__init__()
        self.guess = dict(guess)

    def on_epoch_end(self, epoch, logs=None):
        if bad := [name for name, value in logs.items() if not np.isfinite(value)]:
            raise FloatingPointError(f"epoch {epoch + 1}: {bad[0]} is {float(logs[bad[0]])}")
        logs["val_score"] = score(logs, self.guess)


# The search


class _Told:
    """A line for each trial, in place of keras-tuner's tables, which clear a notebook's output."""

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        print(_line(trials(self).iloc[list(dict.fromkeys(self.oracle.start_order)).index(trial.trial_id)]), flush=True)


def _line(row: pd.Series) -> str:
    """A trial in a line."""
    said = f"score {row['score']:.3f} in epoch {row['best_epoch']:.0f} of {row['epochs']:.0f}"
    if row["status"] != "COMPLETED":
        said = row["message"]
    took = f"{row['seconds']:6.1f} s" if np.isfinite(row["seconds"]) else " " * 8
    return f"trial {row['trial']:3d}  {took}  {row['status'].lower()}, {said}"


class _Hyperband(_Told, keras_tuner.Hyperband):
    def run_trial(self, trial, *args, **kwargs):
        if before := trial.hyperparameters.values.get("tuner/trial_id"):
            kwargs["resume"] = Path(self.get_trial_dir(before)) / CHECKPOINT
        return super().run_trial(trial, *args, **kwargs)


class _Bayesian(_Told, keras_tuner.BayesianOptimization):
    pass


def search(space: Space, kind: str, count: int, folder: Path | str) -> keras_tuner.Tuner:
    """Search `space` with at most `count` trials; the tuner, for `trials` and `winner`.

    `kind`: "hyperband" tries many settings for few epochs and goes on with the best third, in brackets, until
    `count` is reached (a setting that goes on counts again; see `hyperband_trials`); "bayesian" tries each setting
    for all epochs, as many as there are hyperparameters at random and then where a Gaussian process expects most.

    The state is kept in `folder`, in a folder named after all that decides the outcome but `count`: a search that
    was killed goes on with the trials it has (the one under way starts again), a finished one with a higher `count`
    is continued, any other starts anew.
    """
    if kind not in ("hyperband", "bayesian"):
        raise ValueError(f"tuner={kind!r}: one of hyperband or bayesian would be right")
    if count < 1:
        raise ValueError(f"trials={count}: at least 1 would be right")
    common = dict(
        hypermodel=space,
        objective=keras_tuner.Objective("val_score", direction="min"),
        seed=space.seed + 1,  # keras-tuner takes 0 for "none" and draws one
        directory=Path(folder) / ".search",
        project_name=f"{space.network}-{kind}-{space.digest()}",
        max_consecutive_failed_trials=count + 1,  # keras-tuner's own end leaves the state on disk behind
    )
    # its messages name folders of this machine
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            tuner = _tuner(kind, space, count, common)
        except json.JSONDecodeError:  # killed in the middle of a write, which keras-tuner does in place
            broken = True
            tuner = _tuner(kind, space, count, common | {"overwrite": True})
        else:
            broken = False
    if broken:
        print("the kept state of this search is broken: starting anew", flush=True)
    elif done := len(tuner.oracle.end_order):
        kept = trials(tuner)
        print(*map(_line, (kept.iloc[i] for i in range(len(kept)) if kept["status"][i] != "RUNNING")), sep="\n")
        print(f"going on after {done} {'trial' if done == 1 else 'trials'}", flush=True)
    tuner.search(verbose=0)
    return tuner


def _tuner(kind: str, space: Space, count: int, common: dict) -> keras_tuner.Tuner:
    if kind == "hyperband":
        tuner = _Hyperband(max_epochs=space.epochs, factor=3, hyperband_iterations=0, **common)
        tuner.oracle.max_trials = count
        return tuner
    initial = len(space.hyperparameters().space)
    return _Bayesian(max_trials=count, num_initial_points=initial, **common)


def hyperband_trials(epochs: int, factor: int = 3) -> int:
    """How many trials one sweep of Hyperband takes, all brackets together (those that go on count again)."""
    brackets = int(math.log(epochs, factor) + 1e-9) + 1
    end = math.ceil(1 + math.log(epochs, factor))
    return sum(
        math.ceil(end / (bracket + 1) * factor ** (bracket - r)) for bracket in range(brackets) for r in range(bracket + 1)
    )


def trials(tuner: keras_tuner.Tuner) -> pd.DataFrame:
    """All trials in the order they began, failed ones too: one row each.

    trial (from 1), status, score (NaN where it has none), best_epoch and epochs (from the first, also where a
    trial goes on from another), seconds, goes_on (the trial it took its weights from, or 0), setting (number of
    the first trial with the same values), age_mae (years) and gender_accuracy as far as asked, every
    hyperparameter (null where it does not count), message (of a failed one: its error).
    """
    names = [part.name for part in tuner.oracle.get_space().space]
    numbers, settings, rows = {}, {}, []
    for identity in dict.fromkeys(tuner.oracle.start_order):
        trial = tuner.oracle.trials[identity]
        numbers[identity] = len(numbers) + 1
        values = {name: trial.hyperparameters.values.get(name) for name in names}
        values = {name: _rounded(v) if isinstance(v, float) else v for name, v in values.items()}
        kept = {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}
        rows.append({
            "trial": numbers[identity],
            "status": trial.status,
            "score": np.nan if trial.score is None else trial.score,
            **{name: kept.get(name, np.nan) for name in ("best_epoch", "epochs", "seconds")},
            "goes_on": numbers.get(trial.hyperparameters.values.get("tuner/trial_id"), 0),
            "setting": settings.setdefault(json.dumps(values), numbers[identity]),
            **{name: kept.get(f"val_{name}", np.nan) for name in ("age_mae", "gender_accuracy")},
            **values,
            "message": _error(trial.message),
        })  # fmt: skip
    return pd.DataFrame(rows)


def logarithmic(tuner: keras_tuner.Tuner) -> list[str]:
    """Names of the hyperparameters that are spread over orders of magnitude."""
    return [part.name for part in tuner.oracle.get_space().space if getattr(part, "sampling", None) == "log"]


def _error(message: str | None) -> str:
    """The error at the end of a traceback, in a line."""
    lines = (message or "").strip().splitlines()
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return (named or lines or [""])[-1]


def completed(table: pd.DataFrame) -> pd.DataFrame:
    """The trials that ended with a finite score; if there is none, RuntimeError with the first failure's words."""
    done = table[(table["status"] == "COMPLETED") & np.isfinite(table["score"].astype(float))]
    if done.empty:
        failed = table.loc[table["message"] != "", "message"]
        raise RuntimeError(
            f"not one of {len(table)} trials completed with a finite score; "
            + (f"the first that failed said: {failed.iloc[0]}" if len(failed) else "none left a message")
        )
    return done


def shown(table: pd.DataFrame, count: int = 6) -> pd.DataFrame:
    """The best `count` trials for print, a column each; rows that say nothing are left out."""
    part = completed(table).nsmallest(count, "score").set_index("trial").drop(columns=["setting", "status", "message", "seconds"])
    part = part.loc[:, part.notna().any()]
    if not part["goes_on"].any():
        part = part.drop(columns="goes_on")
    forms = {"score": "{:.3f}", "age_mae": "{:.2f} years", "gender_accuracy": "{:.1%}"}
    said = {
        name: [_said(value, forms.get(name, "{:g}")) for value in part[name]] for name in part.columns
    }
    return pd.DataFrame(said, index=[f"trial {number}" for number in part.index]).T


def _said(value: Any, form: str) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else form.format(value).replace("%", " %")


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """The trials that failed, and what they said."""
    failed = table[table["status"] != "COMPLETED"]
    return failed.set_index("trial")[["message"]].rename(columns={"message": "failed with"})


def winner(tuner: keras_tuner.Tuner) -> dict[str, Any]:
    """The best setting as ``recipes.read`` takes it: recipe, changes, epochs, and found (where it comes from)."""
    table, space = trials(tuner), tuner.hypermodel
    best = completed(table).sort_values("score", kind="stable").iloc[0]
    identity = list(dict.fromkeys(tuner.oracle.start_order))[int(best["trial"]) - 1]
    found = {
        "network": space.network,
        "build": space.fixed,
        "size": space.dataset.pixels.shape[1],
        "tasks": space.tasks.outputs,
        "score": best["score"],
        "trial": best["trial"],
        "trials": len(table),
        "completed": len(completed(table)),
        "searched_by": f"{type(tuner).__name__.strip('_')} of keras-tuner {keras_tuner.__version__}",
        "backend": keras.backend.backend(),
        "seed": space.seed,
        "data": space.dataset.digest,
        "split": space.dataset.split_digest,
    }
    changes = space.changes_of(tuner.oracle.trials[identity].hyperparameters.copy())
    return provenance.plain({
        "recipe": space.name_of_base, "changes": changes, "epochs": space.epochs, "found": found,
    })  # fmt: skip


def write(found: Mapping[str, Any], folder: Path | str) -> Path:
    """Write a `winner` as ``recipe.json`` into `folder`."""
    path = Path(folder) / "recipe.json"
    with written_whole(path) as part:
        part.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


# What mattered


def importance(table: pd.DataFrame, names: list[str], repeats: int = 5) -> pd.DataFrame:
    """What each hyperparameter in `names` (and how many epochs a trial had) does to the score.

    Permutation importance (Breiman 2001) of a random forest from values to scores, on settings it has not seen:
    by how much more it errs, as share of the scores' variance, when one hyperparameter's values change places.
    `repeats` forests with other seeds and folds; a setting's trials never lie on both sides.

    Columns: hyperparameter, importance (mean of the repeats), low, high (the lowest and highest of them), and
    foreseen: the share of variance that the forest foresees of unseen settings, the same in every row. At 0 or
    below it knows nothing, and the importances mean nothing. Empty with fewer than FOREST settings.
    """
    done = completed(table)
    columns = [name for name in [*names, "epochs"] if done[name].nunique(dropna=False) > 1]
    empty = pd.DataFrame(columns=["hyperparameter", "importance", "low", "high", "foreseen"])
    if done["setting"].nunique() < FOREST or done["score"].nunique() < 2:
        return empty
    given = pd.DataFrame({name: _numbers(done[name]) for name in columns}).to_numpy()
    scores, spread = done["score"].to_numpy(float), done["score"].var(ddof=0)
    lost, missed = np.zeros((repeats, len(columns))), np.zeros(repeats)
    for seed in range(repeats):
        folds = GroupKFold(min(5, done["setting"].nunique() // 2), shuffle=True, random_state=seed)
        for train, test in folds.split(given, scores, done["setting"]):
            forest = RandomForestRegressor(50, min_samples_leaf=2, random_state=seed).fit(given[train], scores[train])
            share = len(test) / len(scores) / spread
            missed[seed] += share * np.square(forest.predict(given[test]) - scores[test]).mean()
            moved = permutation_importance(
                forest, given[test], scores[test], scoring="neg_mean_squared_error", n_repeats=4, random_state=seed
            )
            lost[seed] += share * moved.importances_mean
    found = pd.DataFrame({
        "hyperparameter": columns, "importance": lost.mean(0), "low": lost.min(0), "high": lost.max(0),
        "foreseen": 1 - missed.mean(),
    })  # fmt: skip
    return found.sort_values("importance", ascending=False, ignore_index=True)


def _numbers(values: pd.Series) -> np.ndarray:
    """Values as numbers, for a forest: its splits need an order alone; names get one, NaN stays."""
    if pd.api.types.is_numeric_dtype(values) or all(isinstance(v, (int, float)) or v is None for v in values):
        return values.astype(float).to_numpy()
    return pd.factorize(values, sort=True)[0].astype(float)


# Sentences


def importance_words(found: pd.DataFrame, table: pd.DataFrame) -> str:
    """A title: what mattered most, as far as the trials can say."""
    count = completed(table)["setting"].nunique()
    if found.empty:
        return f"{count} settings are too few to ask what mattered"
    foreseen = found["foreseen"].iloc[0]
    if foreseen <= 0:
        return (
            f"What mattered can't be told from {count} settings: a forest that saw the others "
            "foresees a setting's score no better than their mean"
        )
    clear = found[found["low"] > 0]["hyperparameter"].str.replace("_", " ").tolist()[:3]
    text = f"Most to the score did {' and '.join(clear)}" if clear else "No hyperparameter stands out"
    few = f"; {count} settings say little" if count < FEW else ""
    return f"{text} (the forest foresees {labels.percent(foreseen)} of the variance{few})"


def search_words(tuner: keras_tuner.Tuner) -> str:
    """What was searched and found: trials, the best score, and how far the setting lies from the base recipe."""
    table, found = trials(tuner), winner(tuner)
    done, space = completed(table), tuner.hypermodel
    settings, facts = done["setting"].nunique(), found["found"]
    text = (
        f"{facts['searched_by'].split(' of ')[0]} ran {len(table)} trials; {len(table) - len(done) or 'none'} failed, "
        f"and the others tried {settings} settings. "
        f"**The best, trial {facts['trial']}, errs {labels.percent(facts['score'])} as much as a guesser**"
    )
    best = done.loc[done["score"].idxmin()]
    parts = [f"ages off by {best['age_mae']:.1f} years"] if "age" in space.guess else []
    parts += [f"{labels.percent(best['gender_accuracy'])} of genders right"] if "gender" in space.guess else []
    text += f" ({', '.join(parts)}, in its best epoch)." if parts else "."
    if settings < FEW:
        text += f" {settings} settings are few for {len(space.table())} hyperparameters: another seed would find another winner."
    return text


def trial_words(table: pd.DataFrame) -> str:
    """A title: how far the search came."""
    done = completed(table)
    best = done.loc[done["score"].idxmin()]
    failed = len(table) - len(done)
    return (
        f"The best of {len(done)} trials, number {best['trial']}, errs {labels.percent(best['score'])} as much as guessing"
        + (f"; {failed} failed" if failed else "")
    )


def gain_words(differences: pd.DataFrame) -> str:
    """Whether the winner does better than the recipe that the search began with, from ``comparison.differences``."""
    said = []
    for row in differences[differences["n"] > 0].itertuples():
        years = row.measure == "age MAE"
        scale, unit = (1, "years") if years else (100, "points")
        what = "is off by" if years else "is right about gender"
        size = f"{abs(row.value) * scale:.1f} {unit} {'less' if row.value < 0 else 'more'}"
        between = f" [{row.low * scale:+.1f}, {row.high * scale:+.1f}]" if np.isfinite(row.low) else ""
        verdict = "no more than chance might do"
        if row.p_holm < metrics.LEVEL:
            verdict = "a gain" if (row.value < 0) == years else "a loss"
        said.append(f"On {row.n:,} validation faces the winner {what} {size}{between} than the base recipe: {verdict}.")
    return " ".join(said) or "No validation face has a label to judge the winner by."

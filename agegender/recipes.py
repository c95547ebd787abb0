"""Recipes: how a model is trained, as values. Those of the source projects, a stronger one, and tuned ones."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Mapping, Sequence

from agegender.augment import PRESETS, Augmentation
from agegender.places import home

OUTPUTS = ("age", "age_distribution", "gender", "age_group")
AGE_LOSSES = ("mae", "mse", "huber")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "exponential", "step")


@dataclass(frozen=True)
class Stage:
    """Some epochs at one learning rate. `unfrozen`: which share of the backbone's layers trains, from the top."""

    epochs: int
    learning_rate: float
    unfrozen: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; fields with a comment can be changed by name, see `with_changes`."""

    source: str
    stages: tuple[Stage, ...]
    batch: int = 32  # faces a step
    optimizer: str = "adam"  # one of OPTIMIZERS
    weight_decay: float = 0.0  # of adamw
    clip: float = 0.0  # largest norm of a gradient over all weights; 0: any
    schedule: str = "constant"  # one of SCHEDULES, over each stage
    warmup: float = 0.0  # cosine: epochs at a stage's start in which the rate rises from 0
    decay: float = 0.5  # exponential, step: what the rate is multiplied by ...
    decay_steps: int = 5000  # exponential: ... per so many steps, smoothly
    decay_epochs: int = 10  # step: ... every so many epochs
    patience: int = 0  # constant: epochs without progress before the rate is halved; 0: never
    stop_after: int = 0  # epochs without progress after which training ends; 0: never
    monitor: str = "val_loss"  # what progress means; the best epoch by it is kept
    age: str = "regression"  # or "distribution": see tasks.Tasks
    age_loss: str = "mae"  # one of AGE_LOSSES, on the age in years
    age_weight: float = 0.1
    distribution_weight: float = 1.0
    sigma: float = 2.0  # years: spread of the distribution that a labelled age stands for
    gender_weight: float = 1.0
    group_weight: float = 1.0
    label_smoothing: float = 0.0  # of gender and age groups
    augmentation: Augmentation = PRESETS["none"]
    balance: float = 0.0  # oversample rare ages and genders; 0: as they are, 1: every age band alike
    average: int = 0  # average the weights of so many last epochs, if that is better on validation; 0: don't
    flip_test: bool = False  # predict the mean over a picture and its mirror image
    model: Mapping[str, Any] = field(default_factory=dict)  # arguments of the network's build that go with it

    def __post_init__(self):
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("age_loss", AGE_LOSSES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: one of {', '.join(known)} would be right")
        if self.patience and self.schedule != "constant":
            raise ValueError(f"patience={self.patience} halves a constant rate; schedule is {self.schedule!r}")
        for name in ("batch", "decay_steps", "decay_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: 1 or more would be right")
        for name in ("weight_decay", "clip", "warmup", "patience", "stop_after", "balance", "average"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: 0 or more would be right")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing}: 0 to less than 1 would be right")
        if not self.stages or any(stage.epochs < 1 or stage.learning_rate <= 0 for stage in self.stages):
            raise ValueError("stages: at least one, each of 1 epoch or more at a learning rate above 0")
        if any(not 0 <= stage.unfrozen <= 1 for stage in self.stages):
            raise ValueError("unfrozen: a share of the backbone's layers, 0 to 1, would be right")

    @property
    def epochs(self) -> int:
        """Epochs of all stages; `average` and `stop_after` may add one and take some."""
        return sum(stage.epochs for stage in self.stages)

    def with_changes(self, changes: Mapping[str, Any]) -> Recipe:
        """This recipe with some fields changed, by name. `learning_rate` scales every stage's rate so that the
        highest is the one given, `unfrozen` is set in every stage; `augmentation` is a preset's name or a mapping
        of limits to change in it; `model` adds to the arguments that are there."""
        if not changes:
            return self
        known = {f.name for f in dataclasses.fields(self)} - {"source", "stages"} | {"learning_rate", "unfrozen"}
        for name in changes:
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise ValueError(
                    f"changes: {name!r} is no field of a recipe{f', did you mean {near[0]!r}?' if near else ''}; "
                    f"they are {', '.join(sorted(known))}"
                )
        given = dict(changes)
        stages = self.stages
        if "learning_rate" in given:
            factor = given.pop("learning_rate") / max(stage.learning_rate for stage in stages)
            stages = tuple(replace(stage, learning_rate=stage.learning_rate * factor) for stage in stages)
        if "unfrozen" in given:
            share = given.pop("unfrozen")
            stages = tuple(replace(stage, unfrozen=share) for stage in stages)
        if "model" in given:
            given["model"] = {**self.model, **given["model"]}
        if isinstance(asked := given.get("augmentation"), str):
            if asked not in PRESETS:
                raise ValueError(f"augmentation={asked!r}: one of {', '.join(PRESETS)} would be right")
            given["augmentation"] = PRESETS[asked]
        elif isinstance(asked, Mapping):
            try:
                given["augmentation"] = replace(self.augmentation, **asked)
            except TypeError as error:
                raise ValueError(f"augmentation={asked}: {error}") from None
        said = ", ".join(f"{name} {value}" for name, value in changes.items())
        return replace(self, source=f"{self.source}; changed: {said}", stages=stages, **given)

    def words(self, outputs: Sequence[str] = OUTPUTS) -> dict[str, str]:
        """What is done for a network with `outputs`, by step, for print; what is off is left out."""
        rates = ", ".join(
            f"{s.epochs} epochs at {s.learning_rate:.2g}" + (f" ({s.unfrozen:.0%} of the backbone)" if s.unfrozen < 1 else "")
            for s in self.stages
        )  # fmt: skip
        course = {
            "constant": f"halved after {self.patience} epochs without progress" if self.patience else "constant",
            "cosine": f"cosine to 0{f', after a warm-up of {self.warmup:g} epochs' if self.warmup else ''}",
            "exponential": f"times {self.decay:g} per {self.decay_steps:,} steps, smoothly",
            "step": f"times {self.decay:g} every {self.decay_epochs} epochs",
        }[self.schedule]
        losses = {
            f"age: {self.age_loss.upper()} x {self.age_weight:g}": "age" in outputs and self.age_weight,
            f"age distribution: cross-entropy x {self.distribution_weight:g}, labels spread by "
            f"{self.sigma:g} years": "age_distribution" in outputs and self.distribution_weight,
            f"gender: cross-entropy x {self.gender_weight:g}": "gender" in outputs and self.gender_weight,
            f"age groups: cross-entropy x {self.group_weight:g}": "age_group" in outputs and self.group_weight,
            f"label smoothing {self.label_smoothing:g}": self.label_smoothing,
        }
        said = {
            "source": self.source,
            "stages": rates,
            "learning rate": course,
            "optimiser": self.optimizer + (f", weight decay {self.weight_decay:g}" if self.weight_decay else "")
            + (f", gradients clipped at {self.clip:g}" if self.clip else ""),
            "batch": f"{self.batch} faces",
            "losses": "; ".join(text for text, on in losses.items() if on),
            "augmentation": "; ".join(f"{k} {v}" for k, v in self.augmentation.words().items()) or "none",
            "balancing": f"strength {self.balance:g}" if self.balance else "none",
            "kept": f"the epoch with the best {self.monitor}"
            + (f", or the average of the last {self.average} if that is better" if self.average else ""),
            "stops": f"after {self.stop_after} epochs without progress" if self.stop_after else "",
            "prediction": "mean over a face and its mirror image" if self.flip_test else "",
            "network": ", ".join(f"{name} {value}" for name, value in self.model.items())
            + (", whatever the parameters say" if self.model else ""),
        }  # fmt: skip
        return {step: text for step, text in said.items() if text}


def s0(epochs: int = 100) -> Recipe:
    """S0, primary model: SGD with momentum 0.8, the rate halved every 10 epochs; batches of 40; early stopping.

    S0 states no learning rate for SGD (0.01 here) and no patience (15 here).
    """
    return Recipe("S0, SGD", (Stage(epochs, 0.01, 0.0),), batch=40, optimizer="sgd", schedule="step",
                  stop_after=15, augmentation=PRESETS["s0"], balance=1.0)  # fmt: skip


def s0_adam(epochs: int = 100) -> Recipe:
    """S0's other choice for the primary model: Adam with a learning rate of 0.1."""
    recipe = replace(s0(epochs), source="S0, Adam", optimizer="adam", schedule="constant")
    return replace(recipe, stages=(Stage(epochs, 0.1, 0.0),))


def s0_branched(epochs: int = 100) -> Recipe:
    """S0's branched model: Adam (at 0.001: S0 states none that runs), cross-entropies, balanced, augmented."""
    return Recipe("S0, branched", (Stage(epochs, 1e-3),), batch=40, stop_after=15,
                  augmentation=PRESETS["s0"], balance=1.0)  # fmt: skip


def s1_a(epochs: int = 100) -> Recipe:
    """S1's recipe for model A: Adam at 1e-3, MAE and cross-entropy, batches of 32, 100 epochs.

    S1 names no weights for the two losses. With equal ones the age's years drown the cross-entropy, and gender
    is hardly learned: MAE is weighted 0.1 here, which puts the two on one scale.
    """
    return Recipe("S1, model A", (Stage(epochs, 1e-3),), augmentation=PRESETS["s1"])


def s1_b(epochs: int = 90, steps: int = 3) -> Recipe:
    """S1's recipe for model B: 5 of 90 epochs for the heads alone, then the backbone unfrozen from the top in
    equal `steps`, ReduceLROnPlateau.

    S1 names neither its later learning rates nor its steps: here the backbone trains at a third of the heads'
    rate, falling with each step, and the rate is halved after 5 epochs without progress. Of fewer epochs,
    the same share is for the heads (at least 1). The losses are weighted as for model A.
    """
    frozen = min(max(1, round(epochs * 5 / 90)), epochs - 1)
    rest = epochs - frozen
    steps = max(1, min(steps, rest))
    lengths = [rest // steps + (i < rest % steps) for i in range(steps)]
    stages = [Stage(n, 1e-3 / 3 / (1 + i), (i + 1) / steps) for i, n in enumerate(lengths)]
    if frozen:
        stages.insert(0, Stage(frozen, 1e-3, 0.0))
    return Recipe("S1, model B", tuple(stages), patience=5, augmentation=PRESETS["s1"])


def s2(epochs: int = 50) -> Recipe:
    """S2's recipe, for both its models: Adam, squared error (weight 0.1), cross-entropy (1), batches of 64.

    S2 states no learning rate but one it gave up; Adam's usual 0.001 is used. No augmentation.
    """
    return Recipe("S2", (Stage(epochs, 1e-3),), batch=64, age_loss="mse")


def s3(epochs: int = 10) -> Recipe:
    """S3's recipe: Adam at 1e-3, squared error and cross-entropy with equal weights, batches of 32, 10 epochs."""
    return Recipe("S3", (Stage(epochs, 1e-3),), age_loss="mse", age_weight=1.0)


def s4(epochs: int = 30) -> Recipe:
    """S4's recipe, for age groups: Adam at 1e-3, times 0.8 per 5,000 steps, batches of 32; the epoch with the
    best validation accuracy is kept."""
    return Recipe("S4", (Stage(epochs, 1e-3),), schedule="exponential", decay=0.8, decay_steps=5000,
                  monitor="val_age_group_accuracy", augmentation=PRESETS["s4"])  # fmt: skip


def modern(epochs: int = 30) -> Recipe:
    """What moves the number, together: a distribution over ages with its expectation (Gao et al. 2018), AdamW with
    warm-up and cosine, stronger augmentation, some balancing, label smoothing, averaged weights, flip averaging."""
    return Recipe("modern", (Stage(epochs, 1e-3),), optimizer="adamw", weight_decay=0.02, clip=1.0,
                  schedule="cosine", warmup=min(2.0, epochs / 5), age="distribution", age_weight=0.1,
                  label_smoothing=0.05, augmentation=PRESETS["modern"], balance=0.3,
                  average=min(5, max(epochs // 5, 1)), flip_test=True)  # fmt: skip


def modern_finetune(epochs: int = 20) -> Recipe:
    """`modern` for a pre-trained backbone: all of it trains from the start, at a lower rate."""
    return replace(modern(epochs), source="modern, fine-tuning", stages=(Stage(epochs, 6e-4),))


RECIPES = {
    "s0": s0, "s0_adam": s0_adam, "s0_branched": s0_branched, "s1_a": s1_a, "s1_b": s1_b, "s2": s2, "s3": s3, "s4": s4,
    "modern": modern, "modern_finetune": modern_finetune,
}  # fmt: skip


def read(name: str, epochs: int = 0, changes: Mapping[str, Any] = {}) -> Recipe:
    """The recipe called `name`, of `epochs` epochs (0: its own number), with `changes`.

    `name`: a key of RECIPES, the name of a file in ``notebooks/recipes``, or the path of a file or of the run
    folder that holds one (``recipe.json``, as 07_tuning writes it): {"recipe": a key of RECIPES, "changes": {...},
    "epochs": its own number}. Raises ValueError where there is none.
    """
    if epochs < 0:
        raise ValueError(f"epochs={epochs}: 1 or more would be right, or 0 for the recipe's own number")
    if name not in RECIPES:
        tuned = _tuned(name)
        recipe = read(tuned["recipe"], epochs or tuned["epochs"], tuned["changes"])
        return recipe.with_changes(changes)
    return (RECIPES[name](epochs) if epochs else RECIPES[name]()).with_changes(changes)


def _tuned(name: str) -> dict:
    places = [home() / "notebooks" / "recipes" / f"{name}.json", home() / name, home() / name / "recipe.json"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ValueError(
            f"recipe={name!r}: no such recipe; there are {', '.join([*RECIPES, *kept()])}, "
            "or give the folder of a finished run of 07_tuning"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        wrong = {"recipe", "changes", "epochs"} - set(content) or content["recipe"] not in RECIPES
    except (ValueError, TypeError):
        wrong = True
    if wrong:
        raise ValueError(f"{path.name} is no recipe: it should hold recipe (a known name), changes and epochs")
    return content


def kept() -> list[str]:
    """Names of the recipes in ``notebooks/recipes``."""
    return sorted(path.stem for path in (home() / "notebooks" / "recipes").glob("*.json"))

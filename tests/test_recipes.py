"""Recipes: those of the source projects, changes by name, and tuned ones from a file."""

from __future__ import annotations

import json

import pytest

from agegender import recipes
from agegender.augment import PRESETS


def test_recipes_are_the_source_projects():
    read = {name: recipes.read(name) for name in recipes.RECIPES}
    rate = {name: recipe.stages[-1].learning_rate for name, recipe in read.items()}
    s0, s0_adam, a, b, s2, s3, s4 = (read[n] for n in ("s0", "s0_adam", "s1_a", "s1_b", "s2", "s3", "s4"))
    assert (s0.optimizer, s0.schedule, s0.decay, s0.decay_epochs, s0.batch, s0.epochs) == ("sgd", "step", 0.5, 10, 40, 100)
    assert s0.stop_after and s0.balance == 1 and s0.stages[0].unfrozen == 0
    assert (s0_adam.optimizer, rate["s0_adam"]) == ("adam", 0.1)
    assert (a.epochs, a.batch, a.age_loss, rate["s1_a"], a.optimizer) == (100, 32, "mae", 1e-3, "adam")
    assert (b.epochs, b.stages[0].epochs, b.stages[0].unfrozen) == (90, 5, 0.0) and b.patience > 0
    assert [s.unfrozen for s in b.stages] == sorted(s.unfrozen for s in b.stages) and b.stages[-1].unfrozen == 1
    assert (s2.epochs, s2.batch, s2.age_loss, s2.age_weight, s2.gender_weight) == (50, 64, "mse", 0.1, 1.0)
    assert s2.augmentation == PRESETS["none"] == s3.augmentation
    assert (s3.epochs, s3.batch, s3.age_loss, s3.age_weight, s3.gender_weight, rate["s3"]) == (10, 32, "mse", 1, 1, 1e-3)
    assert (s4.epochs, s4.batch, s4.schedule, s4.decay, s4.decay_steps) == (30, 32, "exponential", 0.8, 5000)
    assert s4.monitor == "val_age_group_accuracy" and s4.augmentation.fill == "constant"
    assert s4.augmentation.contrast == 0.3 and s4.augmentation.shift == 0.2 and s4.augmentation.rotation == 36


@pytest.mark.parametrize("epochs", [1, 2, 3, 14, 40])
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_has_the_epochs_asked_for_and_can_be_told(name, epochs):
    recipe = recipes.read(name, epochs)
    assert recipe.epochs == epochs and recipe.words()["source"] == recipe.source
    assert all(text.strip() for text in recipe.words().values())


def test_changes_go_by_name():
    recipe = recipes.read("s1_b", 10, {"learning_rate": 0.01, "balance": 0.5, "augmentation": {"rotation": 30.0}})
    was = recipes.read("s1_b", 10)
    assert [new.learning_rate / old.learning_rate for new, old in zip(recipe.stages, was.stages)] == pytest.approx([10] * 4)
    assert recipe.balance == 0.5 and recipe.augmentation.rotation == 30 and recipe.augmentation.zoom == 0.1
    assert "changed: learning_rate 0.01" in recipe.source and "balance 0.5" in recipe.source
    assert recipes.read("s1_a", 10, {"augmentation": "s4"}).augmentation == PRESETS["s4"]


@pytest.mark.parametrize("name, changes, message", [
    ("s9", {}, "recipe='s9': no such recipe; there are s0"),
    ("s1_a", {"learning_rat": 1}, "'learning_rat' is no field .* did you mean 'learning_rate'"),
    ("s1_a", {"optimizer": "lion"}, "optimizer='lion': one of adam"),
    ("s1_a", {"augmentation": "s9"}, "augmentation='s9': one of none"),
    ("s1_a", {"augmentation": {"spin": 1}}, "augmentation=.*spin"),
    ("s1_b", {"schedule": "cosine"}, "patience=5 halves a constant rate"),
    ("s1_a", {"learning_rate": 0.0}, "learning rate above 0"),
    ("s1_a", {"label_smoothing": 1.0}, "label_smoothing=1.0"),
    ("s1_a", {"batch": 0}, "batch=0: 1 or more"),
])  # fmt: skip
def test_what_is_wrong_is_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        recipes.read(name, 5, changes)


def test_a_tuned_recipe_is_found_by_folder_path_and_name(tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    content = {"recipe": "s1_a", "epochs": 7, "changes": {"learning_rate": 3e-4, "model": {"width": 8}}}
    for folder, name in (("runs/own/07_tuning", "recipe"), ("notebooks/recipes", "mine")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{name}.json").write_text(json.dumps(content))
    for name in ("runs/own/07_tuning", "runs/own/07_tuning/recipe.json", "mine"):
        recipe = recipes.read(name)
        assert recipe.epochs == 7 and recipe.stages[0].learning_rate == 3e-4 and recipe.model == {"width": 8}
    assert recipes.read("mine").words()["network"] == "width 8, whatever the parameters say"
    assert recipes.read("mine", 3, {"balance": 1.0}).epochs == 3 and recipes.kept() == ["mine"]
    (tmp_path / "notebooks/recipes/broken.json").write_text("{}")
    with pytest.raises(ValueError, match="broken.json is no recipe"):
        recipes.read("broken")

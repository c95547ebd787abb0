"""What a network says: one output per question, named for it."""

from __future__ import annotations

import keras
from keras import layers


def age_head(features, mean_age: float):
    """One ReLU unit: the age in years. Starts at the training mean, where a unit starting at 0 may never wake."""
    start = keras.initializers.Constant(mean_age)
    return layers.Dense(1, activation="relu", bias_initializer=start, dtype="float32", name="age")(features)


def gender_head(features):
    """One sigmoid unit: the probability of label 1, female."""
    return layers.Dense(1, activation="sigmoid", dtype="float32", name="gender")(features)

"""Training: recipes, batches, unfreezing by stages, and resuming where a killed run stopped."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from agegender.places import written_whole


LOSSES = {"mae": keras.losses.MeanAbsoluteError, "mse": keras.losses.MeanSquaredError}


@dataclass(frozen=True)
class Stage:
    """Some epochs at one learning rate. `unfrozen`: which share of the backbone's layers trains, from the top."""

    epochs: int
    learning_rate: float
    unfrozen: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. `age_loss` is a key of LOSSES; the weights are those of the summed loss."""

    source: str
    stages: tuple[Stage, ...]
    batch: int = 32
    age_loss: str = "mae"
    age_weight: float = 1.0
    gender_weight: float = 1.0
    patience: int = 0  # epochs without a lower val_loss before the learning rate is cut; 0: never
    factor: float = 0.5  # what it is then multiplied by

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)


def s1_model_a(epochs: int = 100, learning_rate: float = 1e-3) -> Recipe:
    """S1's recipe for model A: Adam at 1e-3, MAE and cross-entropy, batches of 32, 100 epochs.

    S1 names no weights for the two losses. With equal ones the age's years drown the cross-entropy, and gender
    is hardly learned: MAE is weighted 0.1 here, which puts the two on one scale.
    """
    return Recipe("S1, model A", (Stage(epochs, learning_rate),), age_weight=0.1)


def s1_model_b(
    epochs: int = 90, frozen_epochs: int = 5, steps: int = 3, learning_rate: float = 1e-3
) -> Recipe:
    """S1's recipe for model B: the heads alone at first, then the backbone unfrozen from the top in equal `steps`.

    S1 names neither its learning rates nor its steps: here the backbone trains at a third of the heads' rate,
    falling with each step, and ReduceLROnPlateau halves it after 5 epochs without progress. The losses are
    weighted as for model A.
    """
    if not 0 <= frozen_epochs < epochs:
        raise ValueError(
            f"frozen_epochs={frozen_epochs}: between 0 and epochs - 1 = {epochs - 1} would be right"
        )
    steps = max(1, min(steps, epochs - frozen_epochs))
    lengths = [len(part) for part in np.array_split(range(epochs - frozen_epochs), steps)]
    stages = [Stage(n, learning_rate / 3 / (1 + i), (i + 1) / steps) for i, n in enumerate(lengths)]
    if frozen_epochs:
        stages.insert(0, Stage(frozen_epochs, learning_rate, 0.0))
    return Recipe("S1, model B", tuple(stages), age_weight=0.1, patience=5)


def s2_branched(epochs: int = 50, learning_rate: float = 1e-3) -> Recipe:
    """S2's recipe: Adam, squared error (weight 0.1) and cross-entropy (weight 1), batches of 64, 50 epochs."""
    return Recipe("S2, branched", (Stage(epochs, learning_rate),), batch=64, age_loss="mse", age_weight=0.1)


class Batches(keras.utils.PyDataset):
    """Batches of a memory-mapped array of pictures, gathered as uint8.

    `rows` (n,) are positions in `pixels`; a row may stand several times (balancing). With `seed` the
    order is drawn anew each epoch from (seed, epoch), so epoch 7 is the same whether or not the run
    was interrupted before it. All batches have the same shape: the last is filled up with the first
    faces of the same order, which without `seed` (validation) get weight 0. So do missing labels.
    """

    def __init__(
        self, pixels, rows, batch: int, labels: dict | None = None, seed: int | None = None, epoch: int = 0
    ):
        super().__init__()
        self.pixels, self.rows, self.batch, self.seed, self.epoch = (
            pixels,
            np.asarray(rows),
            batch,
            seed,
            epoch,
        )
        self.labels = {
            name: np.asarray(values, dtype=np.float32).reshape(-1, 1)
            for name, values in (labels or {}).items()
        }
        self._shuffle()

    def _shuffle(self) -> None:
        rows = self.rows
        if self.seed is not None:
            rows = np.random.default_rng([self.seed, self.epoch]).permutation(rows)
        self.order = np.resize(rows, len(self) * self.batch)

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch)

    def __getitem__(self, index: int):
        rows = self.order[index * self.batch : (index + 1) * self.batch]
        faces = self.pixels[rows]
        if not self.labels:
            return (faces,)
        labels = {name: values[rows] for name, values in self.labels.items()}
        first = index * self.batch + np.arange(self.batch) < len(self.rows)
        counted = first | (self.seed is not None)
        known = {
            name: (np.isfinite(values)[:, 0] & counted).astype(np.float32) for name, values in labels.items()
        }
        return faces, {name: np.nan_to_num(values) for name, values in labels.items()}, known


def labels_of(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """{"age": (n,) float32 years, "gender": (n,) float32 0 or 1}, NaN where unknown."""
    return {
        name: table[name].astype("float32").to_numpy(np.float32, na_value=np.nan)
        for name in ("age", "gender")
    }


def compile_model(model: keras.Model, recipe: Recipe, stage: Stage) -> None:
    """Set what trains in `stage`, and compile with Adam and dicts keyed by output, never lists."""
    names = {layer.name: layer for layer in model.layers}
    if backbone := names.get("backbone"):
        count = round(stage.unfrozen * len(backbone.layers))
        backbone.trainable = True
        for i, layer in enumerate(backbone.layers):
            layer.trainable = i >= len(backbone.layers) - count
    model.compile(
        optimizer=keras.optimizers.Adam(stage.learning_rate),
        # the mean over weights, not over faces: missing labels and filled-up batches then don't shrink the loss
        loss={
            "age": LOSSES[recipe.age_loss](reduction="mean_with_sample_weight"),
            "gender": keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight"),
        },
        loss_weights={"age": recipe.age_weight, "gender": recipe.gender_weight},
        weighted_metrics={"age": ["mae"], "gender": ["accuracy"]},
    )


class _Progress(keras.callbacks.Callback):
    """After each epoch: a line one can follow, the history, and a checkpoint to resume from.

    The checkpoint is one file, replaced in one step: all variables of model and optimiser (random states
    among them), the state of the other callbacks, the history, and the best weights so far.
    """

    def __init__(self, path: Path, key: str, epochs: int, others: list):
        super().__init__()
        self.path, self.key, self.epochs, self.others = path, key, epochs, others
        self.history: list[dict] = []
        self.best: list[np.ndarray] | None = None
        self.stage = 0

    def variables(self) -> list:
        return list(self.model.variables) + list(self.model.optimizer.variables)

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in (logs or {}).items()}
        if bad := [name for name, value in logs.items() if not np.isfinite(value)]:
            raise FloatingPointError(
                f"epoch {epoch + 1}: {bad[0]} is {logs[bad[0]]}; a lower learning rate would be right"
            )
        logs.pop("learning_rate", None)
        best = min((row["val_loss"] for row in self.history), default=np.inf)
        row = {
            "epoch": epoch + 1, "stage": self.stage, "seconds": time.perf_counter() - self.began,
            "learning_rate": self.learning_rate, **logs,
        }  # fmt: skip
        self.learning_rate = float(self.model.optimizer.learning_rate)  # a later callback may have cut it
        self.history.append(row)
        if row["val_loss"] < best:
            self.best = self.model.get_weights()
        print(
            f"epoch {epoch + 1:3d}/{self.epochs}  {row['seconds']:6.1f} s  loss {row['loss']:8.3f}"
            f"  age MAE {row['age_mae']:6.2f}  gender {row['gender_accuracy']:6.1%}"
            f"  |  validation: age MAE {row['val_age_mae']:6.2f}  gender {row['val_gender_accuracy']:6.1%}"
            f"{'  *' if row['val_loss'] < best else ''}",
            flush=True,
        )
        self.save()

    def on_train_begin(self, logs=None):
        self.learning_rate = float(self.model.optimizer.learning_rate)

    def save(self) -> None:
        plain = [{k: v for k, v in vars(c).items() if isinstance(v, (int, float))} for c in self.others]
        state = {"key": self.key, "stage": self.stage, "history": self.history, "callbacks": plain}
        arrays = {f"best{i}": values for i, values in enumerate(self.best)}
        if len(self.history) < self.epochs:  # a finished training needs its best weights alone
            variables = [keras.ops.convert_to_numpy(variable) for variable in self.variables()]
            arrays |= {f"variable{i}": values for i, values in enumerate(variables)}
        with written_whole(self.path) as part:
            np.savez(part, state=json.dumps(state), **arrays)


class _Restore(keras.callbacks.Callback):
    """Gives the other callbacks their state back once they have reset themselves."""

    def __init__(self, others: list, states: list[dict]):
        super().__init__()
        self.others, self.states = others, states

    def on_train_begin(self, logs=None):
        for callback, state in zip(self.others, self.states):
            vars(callback).update(state)


def train(
    model: keras.Model,
    pixels,
    table: pd.DataFrame,
    train_rows,
    val_rows,
    recipe: Recipe,
    folder: Path | str,
    seed: int = 0,
) -> pd.DataFrame:
    """Train `model` by `recipe`; afterwards it holds the weights of the epoch with the lowest validation loss.

    `pixels` uint8 (n, size, size, 3) and `table` (n rows, columns file, age, gender) belong together;
    `train_rows` (repeats allowed) and `val_rows` are positions in them. Returns the history, one row per
    epoch (columns epoch, stage, seconds, learning_rate, loss, age_mae, gender_accuracy, val_...).

    Progress is kept in `folder`: a run that was killed goes on after its last whole epoch, and ends with
    the weights of an unbroken one (exactly so on a CPU whose kernels are deterministic). A finished run
    with the same model, data, recipe, seed and code is not trained again. A kept state of anything else
    is dropped. Raises RuntimeError where another process is training into `folder`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".training.lock", timeout=0):
            return _train(
                model, pixels, table, np.asarray(train_rows), np.asarray(val_rows), recipe, folder, seed
            )
    except Timeout:
        raise RuntimeError(
            f"another process is training into {folder}: wait for it, or choose another `out`"
        ) from None


def _train(model, pixels, table, train_rows, val_rows, recipe, folder, seed) -> pd.DataFrame:
    labels = labels_of(table)
    key = _key(model, pixels, table, labels, train_rows, val_rows, recipe, seed)
    checkpoint = folder / ".checkpoint.npz"
    kept = _kept(checkpoint, key)
    starts = np.cumsum([0] + [stage.epochs for stage in recipe.stages])
    done = len(kept["history"]) if kept else 0
    if kept:
        print(f"going on after epoch {done} of {recipe.epochs}, as kept in {checkpoint.name}", flush=True)
    history = list(kept["history"]) if kept else []
    best = _arrays(checkpoint, "best") if kept else None
    for number, stage in enumerate(recipe.stages):
        end = int(starts[number + 1])
        if end <= done:
            continue
        compile_model(model, recipe, stage)
        others = []
        if recipe.patience:
            others.append(
                keras.callbacks.ReduceLROnPlateau(
                    monitor="val_loss", mode="min", factor=recipe.factor, patience=recipe.patience
                )
            )
        progress = _Progress(checkpoint, key, recipe.epochs, others)
        progress.history, progress.best, progress.stage = history, best, number
        callbacks = list(others)
        model.optimizer.build(model.trainable_variables)
        if kept and kept["stage"] == number and done > starts[number]:
            progress.set_model(model)
            _assign(progress.variables(), _arrays(checkpoint, "variable"), checkpoint)
            callbacks.append(_Restore(others, kept["callbacks"]))
        elif kept and done == starts[number]:  # the stage before was the last that ran: its weights go on
            _assign(model.variables, _arrays(checkpoint, "variable")[: len(model.variables)], checkpoint)
        first = max(done, int(starts[number]))
        model.fit(
            Batches(pixels, train_rows, recipe.batch, labels, seed=seed, epoch=first),
            validation_data=Batches(pixels, val_rows, recipe.batch, labels),
            initial_epoch=first,
            epochs=end,
            shuffle=False,  # Batches has shuffled, by seed and epoch; Keras would reorder the batches by no seed
            verbose=0,
            callbacks=[*callbacks, progress],
        )
        history, best = progress.history, progress.best
    model.set_weights(best)
    return pd.DataFrame(history)


def predict(model: keras.Model, pixels, rows, batch: int = 64) -> dict[str, np.ndarray]:
    """What `model` says of the faces at `rows` (n,): {"age": (n,) years, "gender": (n,) probability of female}."""
    rows = np.asarray(rows)
    said = model.predict(Batches(pixels, rows, batch), verbose=0)
    return {name: np.asarray(values, dtype=np.float64)[: len(rows), 0] for name, values in said.items()}


def _kept(checkpoint: Path, key: str) -> dict | None:
    """The state kept in `checkpoint`, if it is one of this very training."""
    if not checkpoint.is_file():
        return None
    with np.load(checkpoint) as file:
        state = json.loads(str(file["state"]))
    if state["key"] == key:
        return state
    print(
        f"{checkpoint.name} holds another training (model, data, recipe, seed or code differ): starting anew",
        flush=True,
    )
    checkpoint.unlink()
    return None


def _arrays(checkpoint: Path, name: str) -> list[np.ndarray]:
    with np.load(checkpoint) as file:
        return [file[f"{name}{i}"] for i in range(sum(stored.startswith(name) for stored in file.files))]


def _assign(variables: list, values: list, checkpoint: Path) -> None:
    if [tuple(v.shape) for v in variables] != [v.shape for v in values]:
        raise ValueError(
            f"the variables in {checkpoint} do not fit this model: delete that file to train anew"
        )
    for variable, value in zip(variables, values):
        variable.assign(value)


def _key(model, pixels, table, labels, train_rows, val_rows, recipe, seed) -> str:
    """Digest of all that decides how a training ends: network, first weights, faces, labels, recipe, seed, code."""
    digest = hashlib.sha256(f"{keras.backend.backend()} {keras.__version__} {seed} {asdict(recipe)}".encode())
    for module in (__file__, Path(__file__).with_name("augment.py")):
        digest.update(Path(module).read_bytes())
    for layer in model._flatten_layers():
        plain = {
            k: v
            for k, v in layer.get_config().items()
            if k != "name" and isinstance(v, (int, float, str, tuple))
        }
        digest.update(f"{type(layer).__name__} {sorted(plain.items())}".encode())
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights))
    digest.update("\n".join(table["file"]).encode())
    for rows in (train_rows, val_rows):
        digest.update(np.ascontiguousarray(rows, dtype=np.int64))
        for values in labels.values():
            digest.update(np.ascontiguousarray(values[rows]))
        for start in range(0, len(rows), 1024):
            digest.update(np.ascontiguousarray(pixels[rows[start : start + 1024]]))
    return digest.hexdigest()

"""The engine: batches, losses, unfreezing by stages, and resuming where a killed run stopped."""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from keras import ops

from agegender.places import written_whole
from agegender.recipes import Recipe, Stage
from agegender.tasks import AGES, Tasks

SHORT = 20  # steps that take about as long as it takes TensorFlow to trace one


def _keep_memory() -> None:
    """Have this process keep the memory that it frees, for its next step (glibc's ``mallopt``; elsewhere nothing is done).

    Left alone, glibc gives a step's large blocks back to the system and has them cleared, page by page, for the
    next: a third to a half of what a step of training costs a processor. The price is up to a sixth more memory.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD (bytes)
            mallopt(option, value)


_keep_memory()


class Batches(keras.utils.PyDataset):
    """Batches of a memory-mapped array of pictures, gathered as uint8.

    `rows` (n,) are positions in `pixels`; a row may stand several times (balancing). With `seed` the
    order is drawn anew each epoch from (seed, epoch), so epoch 7 is the same whether or not the run
    was interrupted before it. All batches have the same shape: the last is filled up with the first
    faces of the same order, which without `seed` (validation) get weight 0. So do missing labels.
    `labels`: as from `labels_of`. `mirror`: every picture mirrored.
    """

    def __init__(
        self, pixels, rows, batch: int, labels: dict | None = None, seed: int | None = None, epoch: int = 0,
        mirror: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.pixels, self.rows, self.batch, self.seed = pixels, np.asarray(rows), batch, seed
        self.epoch, self.mirror, self.labels = epoch, mirror, labels or {}
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
        if self.mirror:
            faces = np.ascontiguousarray(faces[:, :, ::-1])
        if not self.labels:
            return (faces,)
        labels = {name: values[rows] for name, values in self.labels.items()}
        first = index * self.batch + np.arange(self.batch) < len(self.rows)
        counted = first | (self.seed is not None)
        known = {
            name: (np.isfinite(values).all(1) & counted).astype(np.float32) for name, values in labels.items()
        }
        return faces, {name: np.nan_to_num(values) for name, values in labels.items()}, known


def labels_of(table: pd.DataFrame, tasks: Tasks) -> dict[str, np.ndarray]:
    """What each output of a model for `tasks` should say, float32 (n, k), NaN where unknown.

    "age" and "age_distribution": the age in years, (n, 1), from which the loss makes the distribution;
    "gender": 0 or 1, (n, 1); "age_group": 1 for the group, 0 for the others, (n, groups).
    """
    age, gender = (table[c].astype("float32").to_numpy(np.float32, na_value=np.nan) for c in ("age", "gender"))
    labels = {"age": age[:, None], "age_distribution": age[:, None], "gender": gender[:, None]}
    if tasks.groups:
        group = tasks.group_of(age)[:, None]
        labels["age_group"] = np.where(np.isnan(group), np.nan, group == np.arange(len(tasks.groups)))
    return {name: labels[name].astype(np.float32) for name in tasks.outputs}


@keras.saving.register_keras_serializable("agegender")
class AgeDistributionLoss(keras.losses.Loss):
    """Cross-entropy between predicted probabilities of ages (n, 117) and a normal curve round the labelled age.

    Deep label distribution learning (Gao et al. 2018): a face labelled 30 could as well be 29 or 31. `y_true` (n, 1)
    in years; `sigma` in years.
    """

    def __init__(self, sigma=2.0, reduction="mean_with_sample_weight", name="age_distribution", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.sigma = sigma

    def call(self, y_true, y_pred):
        years = ops.arange(AGES, dtype=y_pred.dtype)
        label = ops.clip(ops.cast(y_true, y_pred.dtype), 0, AGES - 1)
        curve = ops.exp(-0.5 * ops.square((years - label) / self.sigma))
        curve = curve / ops.sum(curve, axis=-1, keepdims=True)
        return -ops.sum(curve * ops.log(y_pred + 1e-7), axis=-1)

    def get_config(self):
        return {**super().get_config(), "sigma": self.sigma}


def prepare(precision: str = "float32", devices: int = 1) -> None:
    """Set how models built from now on compute: `precision` "float32" or "mixed_bfloat16" (augmentation, outputs
    and weights stay float32), on `devices` devices at once (data parallel; on the JAX backend alone)."""
    if precision not in ("float32", "mixed_bfloat16"):
        raise ValueError(f'precision={precision!r}: "float32" or "mixed_bfloat16" would be right')
    keras.config.set_dtype_policy(precision)
    if devices == 1:
        return
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"devices={devices}: Keras spreads batches over devices on JAX alone, and this is "
            f"{keras.backend.backend()}; set KERAS_BACKEND=jax before starting Python"
        )
    there = keras.distribution.list_devices()
    if not 1 < devices <= len(there):
        raise ValueError(f"devices={devices}: this machine has {len(there)} for Keras ({', '.join(there)})")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=there[:devices]))


def learning_rate(recipe: Recipe, stage: Stage, steps: int):
    """The rate of a stage, for batches of which `steps` make an epoch: a number or a Keras schedule."""
    rate, warm = stage.learning_rate, round(recipe.warmup * steps)
    schedules = keras.optimizers.schedules
    if recipe.schedule == "cosine":
        length = max(stage.epochs * steps - warm, 1)
        return schedules.CosineDecay(0.0 if warm else rate, length, warmup_target=rate if warm else None, warmup_steps=warm)
    if recipe.schedule == "exponential":
        return schedules.ExponentialDecay(rate, recipe.decay_steps, recipe.decay)
    if recipe.schedule == "step":
        return schedules.ExponentialDecay(rate, recipe.decay_epochs * steps, recipe.decay, staircase=True)
    return rate


def compile_model(model: keras.Model, recipe: Recipe, stage: Stage, steps: int) -> None:
    """Set what trains in `stage`, and compile, with dicts keyed by output, never lists. `steps`: of an epoch."""
    names = {layer.name: layer for layer in model.layers}
    if backbone := names.get("backbone"):
        count = round(stage.unfrozen * len(backbone.layers))
        backbone.trainable = True
        for i, layer in enumerate(backbone.layers):
            layer.trainable = i >= len(backbone.layers) - count
    rate = learning_rate(recipe, stage, steps)
    clip = recipe.clip or None
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=0.8, global_clipnorm=clip)
    elif recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, global_clipnorm=clip)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    else:
        optimizer = keras.optimizers.Adam(rate, global_clipnorm=clip)
    # the mean over weights, not over faces: missing labels and filled-up batches then don't shrink the loss
    mean = dict(reduction="mean_with_sample_weight")
    smooth = dict(label_smoothing=recipe.label_smoothing, **mean)
    ages = {"mae": keras.losses.MeanAbsoluteError, "mse": keras.losses.MeanSquaredError, "huber": keras.losses.Huber}
    loss = {
        "age": ages[recipe.age_loss](**mean),
        "age_distribution": AgeDistributionLoss(recipe.sigma, **mean),
        "gender": keras.losses.BinaryCrossentropy(**smooth),
        "age_group": keras.losses.CategoricalCrossentropy(**smooth),
    }
    weight = {
        "age": recipe.age_weight,
        "age_distribution": recipe.distribution_weight,
        "gender": recipe.gender_weight,
        "age_group": recipe.group_weight,
    }
    metrics = {"age": ["mae"], "age_distribution": [], "gender": ["accuracy"], "age_group": ["accuracy"]}
    asked = list(model.output)
    model.compile(
        optimizer=optimizer,
        loss={name: loss[name] for name in asked},
        loss_weights={name: weight[name] for name in asked},
        weighted_metrics={name: metrics[name] for name in asked},
    )
    if keras.backend.backend() == "tensorflow":
        # Losses and metrics make their variables when first asked. Asked first while TensorFlow traces a step, they have
        # it traced twice, which takes 10 seconds for a large network. `fit` begins them at 0 again; on JAX it makes them.
        nothing = {name: np.zeros((1, answer.shape[-1]), np.float32) for name, answer in model.output.items()}
        model.compute_loss(y=nothing, y_pred=nothing)
        model.compute_metrics(None, nothing, nothing)


def is_short(steps: int) -> bool:
    """Whether `steps` of training end sooner if TensorFlow runs them one operation after the other, than if it traces
    the first into a graph and runs that. JAX always compiles."""
    return keras.backend.backend() == "tensorflow" and steps <= SHORT


def figures_of(logs: dict) -> list[tuple[str, str, str]]:
    """The figures of an epoch that a reader wants: (key, name, format), of those that `logs` has."""
    known = [("age_mae", "MAE", "5.2f"), ("gender_accuracy", "gender", "5.1%"), ("age_group_accuracy", "group", "5.1%")]
    return [figure for figure in known if figure[0] in logs]


def line(row: dict, epochs: int, best: bool) -> str:
    """An epoch of a history in a line that fits the book's pages: MAE is that of the age, in years."""
    said = {
        part: " ".join(f"{name} {row[part + key]:{form}}" for key, name, form in figures_of(row))
        for part in ("", "val_")
    }
    return (
        f"epoch {row['epoch']:3d}/{epochs} {row['seconds']:4.0f} s | {said['']}"
        f" | val {said['val_']}{' *' if best else ''}"
    )


class _Names(keras.callbacks.Callback):
    """Calls metrics alike whether a model has one output or more: Keras leaves out the name of a single one."""

    def on_epoch_end(self, epoch, logs=None):
        outputs = list(self.model.output)
        if len(outputs) == 1:
            for key in [k for k in logs if k.removeprefix("val_") in ("mae", "accuracy")]:
                part = "val_" if key.startswith("val_") else ""
                logs[f"{part}{outputs[0]}_{key.removeprefix(part)}"] = logs.pop(key)


class _Progress(keras.callbacks.Callback):
    """After each epoch: a line one can follow, the history, and a checkpoint to resume from.

    The checkpoint is one file, replaced in one step: all variables of model and optimiser (random states
    among them), the state of the other callbacks, the history, and the best weights so far.
    """

    def __init__(self, path: Path, key: str, recipe: Recipe, others: list):
        super().__init__()
        self.path, self.key, self.recipe, self.others = path, key, recipe, others
        self.epochs = recipe.epochs + bool(recipe.average)
        self.history: list[dict] = []
        self.best: list[np.ndarray] | None = None
        self.mean: list[np.ndarray] = []  # of the weights of the last epochs, where the recipe averages
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
        row = {
            "epoch": epoch + 1, "stage": self.stage, "seconds": time.perf_counter() - self.began,
            "learning_rate": self.learning_rate, **logs,
        }  # fmt: skip
        self.learning_rate = float(self.model.optimizer.learning_rate)  # a later callback may have cut it
        self.history.append(row)
        best = best_epoch(self.history, self.recipe.monitor) == len(self.history) - 1
        if best:
            self.best = self.model.get_weights()
        if 0 < self.recipe.epochs - len(self.history) + 1 <= self.recipe.average:
            self._average(self.recipe.average - (self.recipe.epochs - len(self.history)))
        self.model.stop_training = stops(self.history, self.recipe)
        print(line(row, self.epochs, best), flush=True)
        self.save()

    def _average(self, count: int) -> None:
        """Take the present weights into the mean, as the `count`th."""
        now = self.model.get_weights()
        self.mean = [m + (w - m) / count for m, w in zip(self.mean, now)] if count > 1 else now

    def on_train_begin(self, logs=None):
        self.learning_rate = float(self.model.optimizer.learning_rate)

    def save(self) -> None:
        plain = [{k: v for k, v in vars(c).items() if isinstance(v, (int, float))} for c in self.others]
        state = {"key": self.key, "stage": self.stage, "history": self.history, "callbacks": plain}
        arrays = {f"best{i}": values for i, values in enumerate(self.best)}
        if len(self.history) < self.epochs:  # a finished training needs its best weights alone
            variables = [ops.convert_to_numpy(variable) for variable in self.variables()]
            arrays |= {f"variable{i}": values for i, values in enumerate(variables)}
            arrays |= {f"mean{i}": values for i, values in enumerate(self.mean)}
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


def best_epoch(history, monitor: str = "val_loss") -> int:
    """Position of the best epoch in a history (rows or table): the first with the lowest (accuracies: highest) value."""
    values = np.array([row[monitor] for row in history] if isinstance(history, list) else history[monitor])
    return int(values.argmax() if monitor.endswith("accuracy") else values.argmin())


def stops(history: list[dict], recipe: Recipe) -> bool:
    """Whether training ends here for want of progress."""
    return bool(recipe.stop_after) and len(history) - 1 - best_epoch(history, recipe.monitor) >= recipe.stop_after


def train(
    model: keras.Model,
    pixels,
    table: pd.DataFrame,
    tasks: Tasks,
    train_rows,
    val_rows,
    recipe: Recipe,
    folder: Path | str,
    seed: int = 0,
) -> pd.DataFrame:
    """Train `model`, built for `tasks`, by `recipe`; afterwards it holds the weights of the best epoch.

    `pixels` uint8 (n, size, size, 3) and `table` (n rows, columns file, age, gender) belong together;
    `train_rows` (repeats allowed) and `val_rows` are positions in them. Returns the history, one row per
    epoch: epoch, stage, seconds, learning_rate, loss, age_mae, gender_accuracy, age_group_accuracy (as far as
    asked), val_..., kept (True in the epoch whose weights were kept) and averaged (True in the last row of a
    recipe that averages weights: an epoch at rate 0, in which batch norm's statistics are estimated again).

    Progress is kept in `folder`: a run that was killed goes on after its last whole epoch, and ends with
    the weights of an unbroken one (exactly so on a CPU whose kernels are deterministic). A finished run
    with the same model, data, recipe, seed and code is not trained again. A kept state of anything else
    is dropped. Raises RuntimeError where another process is training into `folder`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    labels = labels_of(table, tasks)
    if set(labels) != set(model.output):
        raise ValueError(f"the model answers {', '.join(model.output)}, and the tasks are {', '.join(labels)}")
    try:
        with FileLock(folder / ".training.lock", timeout=0):
            rows = np.asarray(train_rows), np.asarray(val_rows)
            history = pd.DataFrame(_train(model, pixels, table, labels, *rows, recipe, folder, seed))
    except Timeout:
        raise RuntimeError(
            f"another process is training into {folder}: wait for it, or choose another `out`"
        ) from None
    history["kept"] = np.arange(len(history)) == best_epoch(history, recipe.monitor)
    history["averaged"] = history["epoch"] > recipe.epochs
    return history


def _train(model, pixels, table, labels, train_rows, val_rows, recipe, folder, seed) -> list[dict]:
    key = _key(model, pixels, table, labels, train_rows, val_rows, recipe, seed)
    checkpoint = folder / ".checkpoint.npz"
    kept = _kept(checkpoint, key)
    stages = list(recipe.stages)
    if recipe.average:  # gradient descent with no rate: nothing moves but the statistics of batch norm
        stages.append(Stage(1, 0.0))
    starts = np.cumsum([0] + [stage.epochs for stage in stages])
    history = list(kept["history"]) if kept else []
    best, mean = (_arrays(checkpoint, name) if kept else [] for name in ("best", "mean"))
    done = len(history)
    if kept:
        for i, row in enumerate(history):
            print(line(row, int(starts[-1]), best_epoch(history[: i + 1], recipe.monitor) == i))
        print(f"going on after epoch {done} of {starts[-1]}, as kept in {checkpoint.name}", flush=True)
    for number, stage in enumerate(stages):
        end = int(starts[number + 1])
        if end <= done or history and stops(history, recipe):
            continue
        training = Batches(pixels, train_rows, recipe.batch, labels, seed=seed, epoch=max(done, int(starts[number])))
        averaging = number == len(recipe.stages)
        still = replace(recipe, optimizer="sgd", schedule="constant")
        compile_model(model, still if averaging else recipe, stage, len(training))
        model.run_eagerly = is_short(stage.epochs * len(training))
        others = []
        if recipe.patience and not averaging:
            mode = "max" if recipe.monitor.endswith("accuracy") else "min"
            others.append(
                keras.callbacks.ReduceLROnPlateau(monitor=recipe.monitor, mode=mode, factor=0.5, patience=recipe.patience)
            )
        progress = _Progress(checkpoint, key, recipe, others)
        progress.history, progress.best, progress.mean, progress.stage = history, best, mean, number
        callbacks = [_Names(), *others]
        model.optimizer.build(model.trainable_variables)
        if kept and kept["stage"] == number and done > starts[number]:
            progress.set_model(model)
            _assign(progress.variables(), _arrays(checkpoint, "variable"), checkpoint)
            callbacks.append(_Restore(others, kept["callbacks"]))
        elif kept and done == starts[number]:  # the stage before was the last that ran: its weights go on
            _assign(model.variables, _arrays(checkpoint, "variable")[: len(model.variables)], checkpoint)
        if averaging:
            model.set_weights(mean)
        model.fit(
            training,
            validation_data=Batches(pixels, val_rows, recipe.batch, labels),
            initial_epoch=training.epoch,
            epochs=end,
            shuffle=False,  # Batches has shuffled, by seed and epoch; Keras would reorder the batches by no seed
            verbose=0,
            callbacks=[*callbacks, progress],
        )
        history, best, mean = progress.history, progress.best, progress.mean
    model.set_weights(best)
    model.run_eagerly = False
    return history


def predict(model: keras.Model, pixels, rows, batch: int = 64, flip: bool = False) -> dict[str, np.ndarray]:
    """What `model` says of the faces at `rows` (n,), by output, float64: "age" (n,) in years, "age_distribution"
    (n, 117), "gender" (n,) probability of female, "age_group" (n, groups); as far as it was asked.

    `flip`: the mean over each picture and its mirror image.
    """
    rows = np.asarray(rows)
    both = [model.predict(Batches(pixels, rows, batch, mirror=m), verbose=0) for m in ([False, True] if flip else [False])]
    said = {}
    for name in both[0]:
        values = np.mean([np.asarray(part[name], dtype=np.float64)[: len(rows)] for part in both], axis=0)
        said[name] = values[:, 0] if values.shape[1] == 1 else values
    return said


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
    how = f"{keras.backend.backend()} {keras.__version__} {seed} {asdict(recipe)}"
    digest = hashlib.sha256(how.encode())
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

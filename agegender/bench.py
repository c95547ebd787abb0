"""How fast this machine builds pixels, trains and predicts: ``python -m agegender bench``.

What is measured is compared within one run, in turns and several times, since machines are never quite alone:
a ratio of two speeds is worth more than either. Every model is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np
import pandas as pd

from agegender import faces, pixels, profiles, provenance
from agegender.cost import flops
from agegender.places import cores, home, written_whole

BACKENDS = ("tensorflow", "jax", "torch")
MODELS = ("model_a", "branched:s2", "branched:s0", "model_b:MobileNetV2")
NOTEBOOKS = {"03_model_a": "model_a", "04_model_b": "model_b", "05_branched": "branched"}
OWN_RECIPE = {"model_a": "s1_a", "model_b": "s1_b", "branched:s2": "s2", "branched:s0": "s0_branched"}
ROUNDS = 5
FACES = 2000  # at most so many are decoded and trained on; epochs of a measurement may repeat them
RATIOS = {  # name: (above, below, aim on a CPU, aim on a GPU)
    "fit / ceiling": ("fit", "ceiling", 0.9, 0.8),
    "fit / old way": ("fit", "old way", None, 10.0),
    "plain fit / ceiling": ("plain fit", "ceiling", None, None),
    "fit / plain fit": ("fit", "plain fit", None, None),
}
NOTES = """\
Images per second, medians of {rounds} rounds. ceiling: train steps on one batch that lies on the device,
without augmentation. fit: Keras' fit with the engine's batches and the recipe's augmentation. plain fit:
without it. inference: training.predict. old way: plain fit, fed by Keras' old ImageDataGenerator, which
augments picture by picture in Python (rotation, shift, zoom, flip, brightness), from memory. compile: seconds
of the first fit beyond its steps. MB: the most memory of the process (host). GFLOP: of a forward pass, two
per multiply-add of convolutions and dense layers. MFU: 3 x GFLOP x fit, as share of the most that a large
matrix product in the same precision reached."""


# What is asked of a network: its name is model_a, branched:DESIGN or model_b:BACKBONE.


def full_name(name: str) -> str:
    """`name` with its part after the colon; ValueError for an unknown one."""
    kind, _, part = name.partition(":")
    if kind == "model_a" and not part:
        return name
    if kind == "branched" and part in ("", "s2", "s0"):
        return f"branched:{part or 's2'}"
    if kind == "model_b":
        return f"model_b:{part or 'MobileNetV2'}"
    raise ValueError(f"model {name!r}: model_a, branched:s2, branched:s0 or model_b:BACKBONE would be right")


def recipe_of(name: str):
    """The recipe a network is measured with: its source's, and where that has no augmentation, S1's."""
    from agegender import recipes

    recipe = recipes.read(OWN_RECIPE.get(name) or OWN_RECIPE[name.partition(":")[0]])
    if not recipe.augmentation.words():
        recipe = recipe.with_changes({"augmentation": "s1"})
    return recipe


def build(name: str, arguments: Mapping[str, Any], augmentation=None):
    """The network called `name` with random weights, and its tasks. Of `arguments`, those it takes."""
    from agegender import augment
    from agegender.models import branched, model_a, model_b

    kind, _, part = full_name(name).partition(":")
    function = {"model_a": model_a.build, "model_b": model_b.build}.get(kind) or branched.BUILD[part]
    known = inspect.signature(function).parameters
    given = {key: value for key, value in arguments.items() if key in known}
    if kind == "model_b":
        given |= {"backbone": part, "weights": "none"}
    model = function(**given, augmentation=augmentation or augment.PRESETS["none"])
    return model, known["tasks"].default


# In the process of one model.


def measure(task: dict) -> dict:
    """Measure one network: see `NOTES`. Returns what goes into the record, all numbers plain."""
    import keras
    from keras import ops

    from agegender import training
    from agegender.training import predict

    on_gpu = "cpu" not in str(ops.zeros(1).device).lower()
    size, width = task["size"] or (128 if on_gpu else 64), task["width"] or (64 if on_gpu else 32)
    name, recipe = task["model"], recipe_of(task["model"])
    batch = task["batch"] or recipe.batch
    pictures = pixels.open_pictures(faces.read(task["data"], limit=FACES), size, progress=False)
    training.prepare(task["precision"])
    arguments = {"size": size, "width": width}
    augmented, tasks = build(name, arguments, recipe.augmentation)
    plain, _ = build(name, arguments)
    for model in (augmented, plain):
        training.compile_model(model, recipe, recipe.stages[-1], steps=len(pictures.pixels) // batch or 1)
    labels = training.labels_of(pictures.faces.table, tasks)

    def rows(count: int) -> np.ndarray:
        return np.resize(np.arange(len(pictures.pixels)), count)

    def shuffled(steps: int) -> training.Batches:
        return training.Batches(pictures.pixels, rows(steps * batch), batch, labels, seed=0)

    fixed = keras.tree.map_structure(ops.convert_to_tensor, shuffled(1)[0])
    old = OldWay(pictures.pixels, labels, batch)
    units: dict[str, tuple[Callable[[int], np.ndarray], int]] = {
        # name: (seconds that so many steps take, pictures of a step)
        "fit": (lambda n: _fit(augmented, shuffled(n + 1)), batch),
        "plain fit": (lambda n: _fit(plain, shuffled(n + 1)), batch),
        "old way": (lambda n: _fit(plain, old.dataset(n + 1)), batch),
        "ceiling": (lambda n: _steps(plain, fixed, n), batch),
        "inference": (lambda n: _seconds(lambda: predict(augmented, pictures.pixels, rows(n * 64))), 64),
        "old way, data alone": (lambda n: _seconds(lambda: [old.dataset(n)[i] for i in range(n)]), batch),
    }  # fmt: skip
    first = float(_seconds(lambda: units["fit"][0](1))[0])
    counts, rounds, work = {}, {kind: [] for kind in units}, {kind: [] for kind in units}
    products = {"float32": _product("float32", on_gpu)}
    if task["precision"] == "mixed_bfloat16":
        products["bfloat16"] = _product("bfloat16", on_gpu)
    for kind, (steps, _) in units.items():
        steps(2)  # compiles
        counts[kind] = int(np.clip(task["seconds"] / ROUNDS / (steps(2)[0] / 2), 2, 10_000))
    matmul: dict[str, list[float]] = {kind: [] for kind in products}
    for turn in range(ROUNDS):
        order = list(units)[:: (-1) ** turn]  # there and back, so that no kind is always the later one
        for kind in order:
            steps, faces_a_step = units[kind]
            seconds, used = steps(counts[kind]) / (counts[kind] * faces_a_step)
            rounds[kind].append(1 / seconds)
            work[kind].append(used)
        for kind, product in products.items():
            matmul[kind].append(product())
    return {
        "model": name, "backend": keras.backend.backend(), "precision": task["precision"],
        "device": "GPU" if on_gpu else "CPU", "arguments": arguments, "batch": batch, "recipe": recipe.source,
        "augmentation": recipe.augmentation.words(), "parameters": augmented.count_params(),
        "flops": flops(augmented), "xla": {"fit": augmented.jit_compile, "plain fit": plain.jit_compile},
        "steps": counts, "images_per_second": rounds, "core_seconds_per_image": work,
        "matmul_flops_per_second": matmul,
        "first_fit_seconds": first,
        "compile_seconds": max(first - 2 * batch / float(np.median(rounds["fit"])), 0.0),
        "peak_memory_mb": provenance.peak_memory(),
        # last: these networks take memory of their own
        "flops_of": [{"arguments": other, "flops": flops(build(name, other)[0])} for other in task["others"]],
        "versions": provenance.versions(),
    }  # fmt: skip


class OldWay:
    """The source projects' input: pictures augmented one by one in Python, by Keras' ImageDataGenerator.

    They also decoded every picture anew in every epoch; here they are in memory, in favour of the old way.
    """

    def __init__(self, pictures, labels: dict, batch: int):
        from keras.src.legacy.preprocessing.image import ImageDataGenerator

        self.labels = labels
        generator = ImageDataGenerator(
            rotation_range=10, width_shift_range=0.08, height_shift_range=0.08, zoom_range=0.1,
            brightness_range=(0.85, 1.15), horizontal_flip=True,
        )  # fmt: skip
        rows = np.resize(np.arange(len(pictures)), max(len(pictures), batch))
        self.flow = generator.flow(np.asarray(pictures[rows]), rows, batch_size=batch, seed=0)
        self.whole = len(rows) // batch  # the generator's last batch may be smaller

    def dataset(self, steps: int):
        import keras

        way = self

        class Dataset(keras.utils.PyDataset):
            def __len__(self):
                return steps

            def __getitem__(self, index):
                pictures, rows = way.flow[index % way.whole]
                labels = {name: np.nan_to_num(values[rows]) for name, values in way.labels.items()}
                known = {
                    name: np.isfinite(values[rows]).all(1).astype(np.float32)
                    for name, values in way.labels.items()
                }
                return pictures.astype(np.uint8), labels, known

        return Dataset()


def _now() -> np.ndarray:
    """Seconds on the wall's clock and of all cores that this process has used, float64 (2,)."""
    return np.array([time.perf_counter(), time.process_time()])


def _seconds(work: Callable[[], Any]) -> np.ndarray:
    began = _now()
    work()
    return _now() - began


def _wait(logs: Mapping[str, Any]) -> None:
    """Until the results of a step are on the host: devices work on while Python goes ahead."""
    from keras import ops

    for value in logs.values():
        float(ops.convert_to_numpy(value))


def _fit(model, data) -> np.ndarray:
    """Seconds (see `_now`) of an epoch of `fit` on `data` from the end of its first step."""
    import keras

    at = {}

    def first(step, logs):
        if step == 0:
            _wait(logs)
            at["first"] = _now()

    def last(epoch, logs):
        _wait(logs)
        at["last"] = _now()

    clock = keras.callbacks.LambdaCallback(on_train_batch_end=first, on_epoch_end=last)
    model.fit(data, shuffle=False, verbose=0, callbacks=[clock])
    return at["last"] - at["first"]


def _steps(model, batch, count: int) -> np.ndarray:
    """Seconds (see `_now`) of `count` train steps on the one `batch`, of a model that `fit` has run on."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":  # as fit does it: the variables leave the model and travel from step to step
        kinds = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
        state = model._get_jax_state(**dict.fromkeys(kinds, True), purge_model_variables=True)
        began = _now()
        for _ in range(count):
            logs, state = model.train_function(state, itertools.repeat(batch))
        _wait(logs)
        seconds = _now() - began
        model._jax_state, model._jax_state_synced = dict(zip(kinds, state)), False
        model.jax_state_sync()
        return seconds
    data = [batch] if backend == "torch" else itertools.repeat(batch)
    began = _now()
    for _ in range(count):
        logs = model.train_function(data)
    _wait(logs)
    return _now() - began


def _product(dtype: str, on_gpu: bool) -> Callable[[], float]:
    """A function that measures floating-point operations per second of a large matrix product."""
    from keras import ops

    side, count = (8192, 30) if on_gpu else (2048, 3)
    factor = ops.cast(ops.ones((side, side)) / side, dtype)

    def speed() -> float:
        result = factor
        began = time.perf_counter()
        for _ in range(count):
            result = ops.matmul(result, factor)
        float(ops.convert_to_numpy(ops.cast(result[0, 0], "float32")))
        return 2 * side**3 * count / (time.perf_counter() - began)

    speed()
    return speed


# In the process that the reader started.


def measure_pixels(found: faces.Faces, size: int, seconds: float) -> dict:
    """Images per second of building pixels, and of a plain loop that decodes and resizes by Pillow, in turns.

    Pixels are built on all cores, with thumbnails, digests and files besides, which the loop does not make.
    """
    from PIL import Image

    def plain(files) -> list:
        made = []
        for file in files:
            with Image.open(found.root / file) as image:
                made.append(np.asarray(image.convert("RGB").resize((size, size))))
        return made

    def built(count: int) -> None:
        table = found.table.head(count)
        part = replace(found, table=table, aside=found.aside.head(0), found=len(table), limited_from=None)
        with tempfile.TemporaryDirectory() as folder:
            pixels._build(part, size, Path(folder), cores(), progress=False)

    files = found.table["file"].tolist()[:FACES]
    trial = files[:64]
    plain(trial)
    rate = len(trial) / _seconds(lambda: plain(trial))[0]
    files = files[: max(64, round(rate * seconds / ROUNDS))]
    built(len(files))
    rounds: dict[str, list[float]] = {"pixels": [], "plain Pillow": []}
    for _ in range(ROUNDS):
        rounds["plain Pillow"].append(len(files) / _seconds(lambda: plain(files))[0])
        rounds["pixels"].append(len(files) / _seconds(lambda: built(len(files)))[0])
    return {"size": size, "faces": len(files), "workers": cores(), "images_per_second": rounds}


def networks_of(profile: profiles.Profile) -> list[dict]:
    """The runs of a profile that train: run, model, arguments of its build, epochs."""
    found = []
    for run in profile.runs.values():
        kind = NOTEBOOKS.get(run.notebook.stem)
        if kind is None:
            continue
        given = run.parameters
        part = given.get("design" if kind == "branched" else "backbone", "") if kind != "model_a" else ""
        name = full_name(f"{kind}:{part}" if part else kind)
        epochs = given["epochs"]
        if not epochs:  # the recipe's own number
            from agegender import recipes  # not sooner: it loads Keras

            epochs = recipes.read(given["recipe"]).epochs
        keys = ("size", "alpha") if kind == "model_b" else ("size", "width")
        found.append({
            "profile": profile.name, "run": run.name, "model": name, "epochs": epochs,
            "arguments": {key: given[key] for key in (*keys, "head", "pooling") if key in given},
        })  # fmt: skip
    return found


def expected(runs: list[dict], results: list[dict], counts: tuple[int, ...]) -> pd.DataFrame:
    """Minutes that training takes, a row for each run of a profile and each backend and precision measured.

    `runs` as from `networks_of`, `results` as from `measure`, `counts`: of faces, 80 % of which train. Epochs
    x training faces / images per second of fit; where size, width or alpha were not measured, times the ratio
    of FLOPs. Missing where the network was not measured at all.
    """
    known = {
        (result["model"], json.dumps(other["arguments"], sort_keys=True)): other["flops"]
        for result in results
        for other in result["flops_of"]
    }
    rows = []
    for result in results:
        for run in runs:
            key = (run["model"], json.dumps(run["arguments"], sort_keys=True))
            row = {name: run[name] for name in ("profile", "run", "model", "epochs")}
            row |= {"size": run["arguments"]["size"]}
            row |= {name: result[name] for name in ("backend", "precision")}
            if result["model"] == run["model"] and key in known:
                scale = known[key] / result["flops"]
                speed = float(np.median(result["images_per_second"]["fit"])) / scale
                row |= {"scaled": scale}
                row |= {
                    f"{count:,} faces": run["epochs"] * round(0.8 * count) / speed / 60 for count in counts
                }
                rows.append(row)
    measured = {result["model"] for result in results}
    for run in runs:
        if run["model"] not in measured:
            row = {name: run[name] for name in ("profile", "run", "model", "epochs")}
            rows.append(row | {"size": run["arguments"]["size"]})
    table = pd.DataFrame(rows)
    order = {(run["profile"], run["run"]): i for i, run in enumerate(runs)}
    table["order"] = [order[at] for at in zip(table["profile"], table["run"])]
    by = [column for column in ("backend", "precision") if column in table]
    return table.sort_values([*by, "order"], kind="stable").drop(columns="order").reset_index(drop=True)


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _verdict(each: list[float], aim: float) -> str:
    """Whether an aim is met, as far as all rounds but one agree."""
    met = sum(value >= aim for value in each)
    return "met" if met >= max(len(each) - 1, 1) else "missed" if met <= 1 else "unclear"


def speeds(results: list[dict]) -> pd.DataFrame:
    """A row per measured model: medians, as explained in `NOTES`."""
    shown = ("ceiling", "fit", "plain fit", "inference", "old way")
    rows = []
    for result in results:
        speed = {kind: _median(values) for kind, values in result["images_per_second"].items()}
        peak = max(
            list(result["matmul_flops_per_second"].values())[-1]
        )  # what the machine can do when left alone
        rows.append({
            "model": result["model"], "backend": result["backend"], "precision": result["precision"],
            "px": result["arguments"]["size"], "batch": result["batch"],
            **{kind: round(speed[kind], 1) for kind in shown},
            "compile": round(result["compile_seconds"], 1), "MB": round(result["peak_memory_mb"]),
            "GFLOP": round(result["flops"] / 1e9, 3),
            "MFU": f"{3 * result['flops'] * speed['fit'] / peak:.0%}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def ratios(results: list[dict]) -> pd.DataFrame:
    """A row per measured model and ratio: median over the rounds, least and most, the aim, whether it is met.

    "by work": the same ratio by the cores' seconds instead of the wall's, where the cores do the computing:
    what else runs on the machine hardly changes it. Aims are judged by the wall's, and are "unclear" where
    the rounds disagree.
    """
    rows = []
    for result in results:
        speed, work = result["images_per_second"], result["core_seconds_per_image"]
        for name, (above, below, on_cpu, on_gpu) in RATIOS.items():
            each = [a / b for a, b in zip(speed[above], speed[below])]
            used = _median(work[below]) / _median(work[above])
            aim, median = on_gpu if result["device"] == "GPU" else on_cpu, _median(each)
            rows.append({
                "model": result["model"], "backend": result["backend"], "precision": result["precision"],
                "ratio": name, "median": round(median, 2), "rounds": f"{min(each):.2f} to {max(each):.2f}",
                "by work": "" if result["device"] == "GPU" else f"{used:.2f}",
                "aim": "" if aim is None else f"{aim:g}",
                "": "" if aim is None else _verdict(each, aim),
            })  # fmt: skip
    return pd.DataFrame(rows)


def report(record: dict) -> str:
    """What `bench` prints at its end."""
    parts = []
    machine = record["machine"]
    parts.append(
        f"{machine['platform']}; load before {machine['load_before']}, after {machine['load_after']}"
    )
    if record["pixels"]:
        at, speed = record["pixels"], record["pixels"]["images_per_second"]
        each = [a / b for a, b in zip(speed["pixels"], speed["plain Pillow"])]
        fast, slow = (_median(speed[kind]) for kind in ("pixels", "plain Pillow"))
        parts.append(
            f"Pixels: {fast:,.0f} images/s at {at['size']} px by {at['workers']} workers; a plain loop of "
            f"Pillow {slow:,.0f}: {_median(each):.1f} times as fast ({min(each):.1f} to {max(each):.1f})"
        )
    if results := record["results"]:
        parts.append(speeds(results).to_string(index=False))
        parts.append(NOTES.format(rounds=ROUNDS))
        trained = {result["model"]: result["recipe"] for result in results}
        parts.append(f"Recipes: {'; '.join(f'{model}: {recipe}' for model, recipe in trained.items())}.")
        parts.append(
            "Ratios of images per second: median, least and most of the rounds; by work: by seconds of the "
            "cores, which other programs disturb less.\n" + ratios(results).to_string(index=False)
        )
    if record["expected"]:
        table = pd.DataFrame(record["expected"])
        minutes = [column for column in table if column.endswith(" faces")]
        if minutes:
            by = ["profile", "backend", "precision"]
            whole = table.dropna(subset=minutes).groupby(by, sort=False)[minutes].sum().reset_index()
            for column in minutes:
                table[column] = table[column].map("{:,.1f}".format, na_action="ignore")
                whole[column] = whole[column].map("{:,.1f}".format)
            if "scaled" in table:
                table["scaled"] = [f"x {s:.2g}" if s == s and s != 1 else "" for s in table["scaled"]]
            parts.append(
                "Expected minutes of training, by profile (80 % of the faces train; every stage counted as\n"
                "if the whole backbone trained; without starting, validation, figures). scaled: FLOPs over\n"
                "those measured, where size or width differ: a rough guess.\n"
                + table.fillna({column: "not measured" for column in minutes})
                .fillna("")
                .to_string(index=False)
            )
            parts.append("Summed over the runs measured:\n" + whole.to_string(index=False))
    for missing in record["missing"]:
        parts.append(f"Not measured: {missing}")
    return "\n\n".join(parts)


def run(given: argparse.Namespace) -> int:
    """Measure what is asked, print the tables, write the record; 1 if something could not be measured."""
    if given.scale:
        from agegender import scale

        try:
            return scale.run(given.data, given.scale, given.size or 64, given.out)
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
    try:
        names = [full_name(name) for name in given.models]
        found = faces.read(given.data)
        runs = [
            network
            for path in sorted((home() / "notebooks" / "profiles").glob("*.yml"))
            for network in networks_of(profiles.read(path))
        ]
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    began, missing, results = time.perf_counter(), [], []
    record: dict[str, Any] = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "options": {key: value for key, value in vars(given).items() if key not in ("run", "out", "verb")},
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}, {cores()} cores{_gpu()}",
            "load_before": _load(),
        },
        "code": provenance.git(),
    }

    def say(text: str, end: str = "\n") -> None:
        print(f"{time.perf_counter() - began:5.0f} s  {text}", end=end, flush=True)

    there = [name for name in BACKENDS if importlib.util.find_spec(name)]
    missing += [f"backend {name}: not installed" for name in given.backends or BACKENDS if name not in there]
    failed = bool(given.backends) and bool(missing)
    queue = [
        (backend, "float32", name)
        for backend in given.backends or BACKENDS
        if backend in there
        for name in names
    ]
    asked = set()
    while queue:
        backend, precision, name = queue.pop(0)
        others = [] if name in asked else [r["arguments"] for r in runs if r["model"] == name]
        task = {
            "model": name, "precision": precision, "size": given.size, "width": given.width,
            "batch": given.batch, "data": given.data, "seconds": given.seconds,
            "others": [json.loads(text) for text in dict.fromkeys(json.dumps(other) for other in others)],
        }  # fmt: skip
        say(f"{name}, {backend}, {precision} ...")
        result, error = _child(backend, task)
        if error:
            say(f"  failed: {error}")
            missing.append(f"{name}, {backend}, {precision}: {error}")
            failed = True
            continue
        asked.add(name)
        results.append(result)
        speed = {kind: _median(values) for kind, values in result["images_per_second"].items()}
        say("  images/s: " + ", ".join(f"{kind} {value:,.0f}" for kind, value in speed.items()))
        if result["device"] == "GPU" and precision == "float32":
            queue.insert(0, (backend, "mixed_bfloat16", name))
    size = given.size or (results[0]["arguments"]["size"] if results else 64)
    say(f"pixels at {size} px ...")
    counts = tuple(dict.fromkeys((len(found.table), 5000)))
    table = expected(runs, results, counts) if results and runs else pd.DataFrame()
    record |= {
        "pixels": measure_pixels(found, size, given.seconds),
        "results": results,
        "missing": missing,
        "expected": json.loads(table.to_json(orient="records")),
    }
    record["machine"]["load_after"] = _load()
    say("done\n")
    print(report(record))
    if given.out:
        with written_whole(given.out) as part:
            part.write_text(
                json.dumps(provenance.plain(record), indent=1, allow_nan=False) + "\n", encoding="utf-8"
            )
        print(f"\nAll numbers: {given.out}")
    return int(failed)


def _child(backend: str, task: dict) -> tuple[dict | None, str]:
    """What `measure` returns in a process of its own on `backend`, or None and what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        done = subprocess.run(
            [sys.executable, "-m", "agegender.bench", json.dumps(task), str(out)],
            env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode or not out.is_file():
            said = done.stderr.strip().splitlines() or [""]
            return None, f"its process ended with {done.returncode}: {said[-1]}"
        return json.loads(out.read_text()), ""


def _gpu() -> str:
    """The names of NVIDIA's GPUs, as far as its own tool tells."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", {', '.join(said.stdout.split(chr(10))[:-1])}" if said.returncode == 0 else ""


def _load() -> str:
    """How many processes wanted a core during the last minute, "?" where the system does not say."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    parser.add_argument(
        "--data", default="sample", metavar="FOLDER", help="faces, as for a report (default: drawn)"
    )
    known = f"model_a, branched:s2, branched:s0, model_b:BACKBONE (default: {' '.join(MODELS)})"
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME", help=known)
    parser.add_argument(
        "--backends", nargs="+", choices=BACKENDS, default=[], help="default: all that are installed"
    )
    parser.add_argument(
        "--size", type=int, default=0, help="pixels per side (default: 64 on a CPU, 128 on a GPU)"
    )
    parser.add_argument(
        "--width", type=int, default=0, help="filters of the first block (default: 32, on a GPU 64)"
    )
    parser.add_argument("--batch", type=int, default=0, help="faces a step (default: the recipe's own)")
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="for each measurement, over all rounds (1.5)"
    )
    parser.add_argument(
        "--scale", nargs="+", type=int, default=[], metavar="N",
        help="instead: time and memory from the table of faces to batches, for N faces each (drawn ones, or of --data)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE.json", help="write all numbers there (with --scale: FILE.csv)")


if __name__ == "__main__":
    result = measure(json.loads(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(provenance.plain(result), allow_nan=False), encoding="utf-8")

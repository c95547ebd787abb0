"""A small copy of this repository with stub notebooks, for testing the machinery without any training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import yaml

from agegender import predictions, provenance

TOP = Path(__file__).resolve().parents[1]
PICTURE = """from IPython.display import display
import base64
pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
display({"image/png": pixel, "text/plain": "a picture"}, raw=True,
        metadata={"image/png": {"alt": ALT, "faces": FACES}})"""
FEW = ("04_model_b_modern", "03_model_a", "p2_model_b_modern")
COMMON = """data: str = "sample"  # where the faces are
seed: int = 0  # of all that is drawn by lot
"""

TINY = """import pandas as pd

def mae(epochs):
    return 10 / (1 + epochs)

def predicted(epochs):
    ages = [3.0, 20.0, 40.0] * 8
    return pd.DataFrame({
        "file": [f"{i}.png" for i in range(24)], "fold": ["val", "test"] * 12, "group": range(24), "age": ages,
        "gender": [0, 1, 1, 0] * 6, "race": None, "age_pred": [age + mae(epochs) for age in ages], "age_low": None,
        "age_high": None, "p_female": 0.6, "age_group_pred": None})
"""


def validation(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Predictions for validation faces by a model that is 3 years off and too sure of genders."""
    rng = np.random.default_rng(seed)
    age, female = rng.uniform(0, 80, n).round(), rng.integers(0, 2, n)
    logit = np.where(female == 1, 2, -2) + rng.normal(0, 2, n)
    found = pd.DataFrame({
        "file": [f"{i:04d}.jpg" for i in range(n)], "fold": "val", "group": np.arange(n), "age": age, "gender": female,
        "age_pred": np.clip(age + rng.normal(0, 3, n), 0, None), "p_female": 1 / (1 + np.exp(-3 * logit)),
    })  # fmt: skip
    return found.reindex(columns=list(predictions.COLUMNS)).astype(predictions.COLUMNS)


def finished(place: Path, network, table: pd.DataFrame, groups=(), flip: bool = True) -> Path:
    """Make `place` the folder of a finished run that trained the Keras model `network` and predicted `table`."""
    place.mkdir(parents=True, exist_ok=True)
    network.save(place / "model.keras")
    predictions.write(table, place / "predictions.parquet")
    facts = {
        "flip_test": flip, "age_groups": list(groups), "model": "model B", "split": {"train": 10, "val": len(table)},
        "data": {"title": "drawn sample", "drawn": True},
    }  # fmt: skip
    record = {
        "parameters": {"size": network.input_shape[1], "data": "sample"}, "facts": facts,
        "files": {"model.keras": provenance.file_digest(place / "model.keras")},
    }  # fmt: skip
    (place / provenance.FILE).write_text(json.dumps(record))
    return place


def notebook(title: str, parameters: str, *cells: str) -> nbformat.NotebookNode:
    """A notebook as the contract wants it: title, parameters, cells of code, ending in a record."""
    new = nbformat.v4
    made = new.new_notebook(
        cells=[
            new.new_markdown_cell(f"# {title}\n\nA question?"),
            new.new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]}),
            *(new.new_code_cell(cell) for cell in cells),
        ]
    )
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata["language_info"] = {"name": "python"}
    return made


def training(name: str) -> nbformat.NotebookNode:
    """A stub of a notebook that trains: waits while there is a file `hold`, shows pictures, predicts."""
    return notebook(
        f"Stub of {name}",
        COMMON + "epochs: int = 3  # passes over the faces\nrate: float = 0.1  # step width\n"
        'backbone: str = "small"  # one of small, large\n'
        "nap: float = 0.1  # seconds between two looks for the file `hold`\n"
        'out: str = ""  # folder for results',
        "import pathlib, sys, time\nfrom agegender import provenance, tiny\n"
        f'run = provenance.start("{name}", globals(), out)',
        "while pathlib.Path('hold').exists():\n    time.sleep(nap)\n"
        "assert epochs > 0, 'nothing to train'\nprint('epochs', epochs)\n"
        "print('careful', file=sys.stderr)",
        PICTURE.replace("ALT", "'A face'").replace("FACES", "True"),
        PICTURE.replace("ALT", "'A curve'").replace("FACES", "False"),
        'tiny.predicted(epochs).to_parquet(run.folder / "predictions.parquet")',
        'run.finish(data={"title": "drawn sample", "drawn": data == "sample", "faces": 10}, weights="none",\n'
        f"           model='{name}', mae=tiny.mae(epochs));",
    )


def comparison() -> nbformat.NotebookNode:
    """A stub of the comparison: glues numbers that other pages show."""
    return notebook(
        "Stub of the comparison",
        'runs: list = []  # folders of the runs to compare\nout: str = ""  # folder for results',
        "from myst_nb import glue\nfrom agegender import provenance\n"
        'run = provenance.start("08_comparison", globals(), out)',
        'errors = {folder.split("/")[-1]: provenance.read(folder)["facts"]["mae"] for folder in runs}\n'
        "best = min(errors, key=errors.get)",
        'glue("finding", f"{best} errs by {errors[best]:.2f} years.", display=False)\n'
        'glue("n_test", 4, display=False)\nglue("n_faces", 10, display=False)\n'
        'glue("data_title", "drawn sample", display=False)\n'
        'glue("starts", "all from nothing", display=False)',
        'for key in ("must_far", "must_side", "must_gender", "must_children", "must_minors"):\n'
        '    glue(key, f"Nobody knows of {key}.", display=False)',
        "run.finish();",
    )


def copied(name: str, folder: Path, stored: tuple[str, ...] = ()) -> None:
    """Copy the folder `name` of this repository into `folder`; of the runs stored in the book only those `stored`, if any
    are named, with which its page of results is computed in a second instead of half a minute."""

    def left_out(place: str, names: list[str]) -> set[str]:
        runs = {one for one in names if (Path(place) / one / provenance.FILE).is_file()} if stored else set()
        return (runs - {*stored}) | {one for one in names if one in ("__pycache__", ".ipynb_checkpoints")}

    shutil.copytree(TOP / name, folder / name, ignore=left_out)


def repository(folder: Path, profile: dict | None = None) -> Path:
    """Copy what the machinery needs into `folder` and put stub notebooks and a profile `tiny` there."""
    for name in ("agegender", "book"):
        copied(name, folder, FEW)
    for name in ("Snakefile", "_config.yml"):
        shutil.copy(TOP / name, folder)
    with open(folder / "agegender" / "faces.py", "a") as file:
        file.write("\n\ndef fingerprint(data):\n    return 'as ever'\n")
    (folder / "agegender" / "tiny.py").write_text(TINY)
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    for name in ("01_exploration", "02_preprocessing", "03_model_a", "04_model_b", "05_branched", "06_preprocessing_study", "07_tuning"):
        nbformat.write(training(name), folder / "notebooks" / f"{name}.ipynb")
    nbformat.write(comparison(), folder / "notebooks" / "08_comparison.ipynb")
    write_profile(
        folder,
        profile
        or {
            "03_model_a": {},
            "04_model_b": {},
            "05_branched": {},
            "08_comparison": {"runs": ["03_model_a", "04_model_b"]},
        },
    )
    return folder


def write_profile(folder: Path, runs: dict, name: str = "tiny", **more) -> Path:
    """Write ``notebooks/profiles/NAME.yml``."""
    path = folder / "notebooks" / "profiles" / f"{name}.yml"
    path.write_text(
        yaml.safe_dump({"title": "Tiny", "common": {"seed": 0}, "runs": runs} | more, sort_keys=False)
    )
    return path


def environment(folder: Path) -> dict[str, str]:
    """The environment for a command in the copy: its own package and caches."""
    without_make = {key: value for key, value in os.environ.items() if key != "MAKELEVEL"}
    return without_make | {
        "PYTHONPATH": str(folder),
        "AGEGENDER_HOME": str(folder),
        "PYTHONNOUSERSITE": "1",
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "IPYTHONDIR": str(folder / ".cache/ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def command(*words: str, profile: str = "tiny") -> list[str]:
    """The command line of `make report` in a copy; `words` are further settings or options."""
    settings = [word for word in words if "=" in word and not word.startswith("-")]
    others = [word for word in words if word not in settings]
    return [
        sys.executable,
        "-m",
        "snakemake",
        *others,
        "-c",
        "2",
        "--nolock",
        "--rerun-incomplete",
        "--keep-going",
        "--quiet",
        "host",
        "reason",
        "rules",
        "--config",
        f"profile={profile}",
        *settings,
    ]


def report(folder: Path, *words: str, **kind: str) -> subprocess.CompletedProcess[str]:
    """Make the report in a copy, everything it says in one text."""
    return subprocess.run(
        command(*words, **kind),
        cwd=folder,
        env=environment(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1200,
    )

"""What was run: each run's folder carries a ``provenance.json`` that says so."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Mapping

import agegender
from agegender.places import cores, home, written_whole

FILE = "provenance.json"
# Written around the notebook by whoever runs it, so no result of the run.
WRAPPING = {FILE, "notebook.ipynb", "log.txt", "benchmark.tsv"}
PACKAGES = (
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "keras_tuner",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "PIL",
    "matplotlib",
    "seaborn",
    "papermill",
)


@dataclass
class Run:
    """A run under way. Results go into `folder` (absolute); `finish` ends it."""

    notebook: str
    parameters: dict[str, Any]
    folder: Path
    started: datetime
    clock: float
    before: dict[str, tuple[int, int]] = field(repr=False)
    code: dict[str, Any] = field(repr=False)  # taken at the start: what is edited later did not run

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Write ``provenance.json`` with what was run and `facts`, and return it.

        Facts are what only the notebook knows: ``data`` (a dict with at least title and drawn), the split's
        digest, the weights loaded, epochs, metrics. Raises ValueError for a number that is not finite.
        """
        record = {
            "notebook": self.notebook,
            **self.code,
            "parameters": self.parameters,
            "facts": facts,
            "versions": versions(),
            "platform": f"{platform.system()} {platform.machine()}, {cores()} core{'s' * (cores() > 1)}",  # that it may use
            "devices": devices(),
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self.clock, 1),
            "peak_memory_mb": peak_memory(),
            "files": {
                name: file_digest(self.folder / name)
                for name, stamp in _stamps(self.folder).items()
                if self.before.get(name) != stamp
            },
        }
        record = plain(record)
        with written_whole(self.folder / FILE) as part:
            part.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return record


def start(notebook: str, namespace: Mapping[str, Any], out: str = "") -> Run:
    """Begin a run: ``run = provenance.start("03_model_a", globals(), out)``, right after the parameters cell.

    Takes the values of the notebook's parameters from `namespace`, makes the folder `out` (relative to
    `home`; empty: ``runs/own/NOTEBOOK``) and starts the clock. An older record there is removed, so that
    a run broken off is not taken for a whole one.
    """
    from agegender import profiles

    names = profiles.parameters(notebook_path(notebook))
    missing = [name for name in names if name not in namespace]
    if missing:
        raise ValueError(f"{notebook}: no value for {', '.join(missing)}; run the parameters cell first")
    values = plain({name: namespace[name] for name in names})
    folder = home() / (out or f"runs/own/{notebook}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    source = notebook_path(notebook)
    code = {
        "notebook_sha256": code_digest(source),
        "sources": source_digests(profiles.sources(source)),
        "code": git(),
    }
    started = datetime.now(timezone.utc)
    return Run(notebook, values, folder, started, time.perf_counter(), _stamps(folder), code)


def read(folder: Path | str) -> dict[str, Any]:
    """The record of a finished run; `folder` as seen from `home`. ValueError if it is missing or broken."""
    path = home() / folder / FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {FILE}: its notebook has not run to its end") from None
    except ValueError as error:
        raise ValueError(f"{folder}/{FILE} is broken ({error}): run its notebook again") from None


def notebook_path(notebook: str) -> Path:
    """Where the notebook called `notebook` stands in the repository."""
    path = home() / "notebooks" / f"{notebook}.ipynb"
    if not path.is_file():
        raise ValueError(f"there is no {notebook}.ipynb in {path.parent.name}/; start takes its name")
    return path


def code_digest(notebook: Path | Mapping[str, Any]) -> str:
    """SHA-256 of a notebook's code cells, less the one papermill injects: the same before and after a run."""
    from agegender import profiles

    cells = [
        "".join(cell["source"])
        for cell in (profiles.cells(notebook) if isinstance(notebook, Path) else notebook["cells"])
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]
    return hashlib.sha256("\n\0".join(cells).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_digests(modules: list[Path]) -> dict[str, str]:
    """SHA-256 of package modules by their names, e.g. ``agegender/faces.py``."""
    from agegender.profiles import PACKAGE

    return {module.relative_to(PACKAGE.parent).as_posix(): file_digest(module) for module in modules}


def git() -> dict[str, Any]:
    """The commit of this checkout and whether files differ from it; both None where git can't say."""

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=home(), capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")).resolve() != home().resolve():  # another project's
            return {"commit": None, "changed": None}
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}


def web_address() -> str | None:
    """The https address of this checkout's repository on GitHub, GitLab or Bitbucket; None where it has none there."""
    try:
        said = subprocess.run(
            ["git", "remote", "get-url", "origin"], cwd=home(), capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    known = re.search(
        r"\b(github\.com|gitlab\.com|bitbucket\.org)[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", said.stdout.strip()
    )
    return f"https://{known[1]}/{known[2]}" if known and said.returncode == 0 else None


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it has imported by now."""
    found = {"python": platform.python_version(), "agegender": agegender.__version__}
    for name in PACKAGES:
        if version := getattr(sys.modules.get(name), "__version__", None):
            found[name] = str(version)
    if keras := sys.modules.get("keras"):
        found["backend"] = keras.config.backend()
    return found


def devices() -> list[str]:
    """What Keras computes on, e.g. ``["cpu:0"]`` or, on JAX, ``["gpu:0 (NVIDIA H200)"]``; just ``["cpu"]`` where
    it is not in use."""
    if keras := sys.modules.get("keras"):
        if keras.config.backend() == "torch":  # Keras knows no list of torch's devices
            return [str(keras.ops.zeros(1).device)]
        found = [str(device) for device in keras.distribution.list_devices()]
        faster = [device for device in found if not device.lower().startswith("cpu")]
        if faster and keras.config.backend() == "jax":
            kinds = {f"{device.platform}:{device.id}": device.device_kind for device in sys.modules["jax"].devices()}
            return [f"{device} ({kinds[device]})" if device in kinds else device for device in faster]
        return faster or found
    return ["cpu"]


def peak_memory() -> float:
    """The most memory this process has held so far, in MiB."""
    if sys.platform == "win32":
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)  # macOS counts bytes, Linux KiB


def plain(value: Any, where: str = "") -> Any:
    """`value` as JSON knows it: NumPy and pandas scalars and arrays become Python's.

    Raises ValueError, naming the place, for numbers that are not finite and for types JSON does not have.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{position}]") for position, item in enumerate(value)]
    if isinstance(value, Path):
        return value.as_posix()
    if not isinstance(value, (str, int, float, bool, type(None))) and hasattr(value, "tolist"):
        return plain(value.tolist(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}: a number in the record has to be finite")
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise ValueError(f"{where} is {value!r} ({type(value).__name__}): give text, numbers, lists or dicts")
    return float(value) if isinstance(value, float) else value


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each result in a folder, to tell what a run wrote from what it found."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in WRAPPING
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }

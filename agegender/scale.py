"""What many faces cost, from their table to batches for training: ``python -m agegender bench --scale N ...``.

Each number of faces is measured in a process of its own with a cache of its own. Time is that of the cores, all
threads together, which a busy machine changes less than the clock's; memory is the process' own, without the
arrays that are mapped from files and that the system may let go of.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import stats

from agegender import dataset, duplicates, faces, pixels, provenance, sample
from agegender.places import cores, home, written_whole

STORED = Path("book/reference/scale.csv")  # beside it, scale.json: on what machine, from which code
DRAWN, PHOTOGRAPHS = "drawn faces, varied", "photographs"
STAGES = {
    "table": "table of faces",
    "fingerprint": "is the data as it was?",
    "pixels": "pixels, decoded",
    "again": "pixels, opened again",
    "duplicates": "near-duplicates",
    "folds": "folds, all else at hand",
    "batches": "an epoch of batches",
}
PAIRS = {"duplicates"}  # looks closely at a share of all pairs: in the end its time grows with the square
SIDE = 100  # pixels of the varied pictures
FIELD = 30.0  # grey levels: what is added to each, so that two of one drawing are not taken for copies
MILLION = 1_000_000


def vary(folder: Path, count: int, seed: int = 0) -> None:
    """Fill `folder` with `count` JPEG files named as in UTKFace, 100 x 100 pixels.

    Each is a drawn face of the sample, cropped and mirrored by lot, with a smooth pattern of light of its own.
    """
    rng = np.random.default_rng(seed)
    table = faces.read("sample").table
    drawn = []
    for file in table["file"]:
        with Image.open(sample.folder() / file) as picture:
            drawn.append(picture.convert("RGB").resize((SIDE, SIDE)))
    labels = ["_".join(file.split("_")[:3]) for file in table["file"]]
    folder.mkdir(parents=True)
    for number in range(count):
        which = int(rng.integers(len(drawn)))
        left, upper = rng.uniform(0, 9, 2)
        right, lower = SIDE - rng.uniform(0, 9, 2)
        picture = drawn[which].resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, upper, right, lower))
        if rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        light = Image.fromarray(rng.normal(0, FIELD, (5, 5)).astype(np.float32))
        light = light.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        whole = np.clip(np.asarray(picture) + np.asarray(light)[..., None], 0, 255).astype(np.uint8)
        Image.fromarray(whole).save(folder / f"{labels[which]}_{10_000_000 + number}.jpg", quality=90)


class _Memory(threading.Thread):
    """The most memory (MB) of this process since the last look, without what is mapped from files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0
        self.start()

    def now(self) -> float:
        try:
            status = Path("/proc/self/status").read_text()
            return int(status.partition("RssAnon:")[2].split()[0]) / 1024
        except (OSError, IndexError):  # not Linux: with the mapped files
            import psutil

            return psutil.Process().memory_info().rss / 2**20

    def run(self) -> None:
        while True:
            self.most = max(self.most, self.now())
            time.sleep(0.02)

    def look(self) -> float:
        most, self.most = max(self.most, self.now()), 0.0
        return most


def measure(data: str, count: int, size: int) -> list[dict]:
    """One row per stage: faces, stage, seconds, core_seconds, peak_mb. `count` 0: all faces of `data`."""
    from agegender.training import Batches, labels_of

    memory, rows = _Memory(), []

    def timed(stage: str, work):
        memory.look()
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        rows.append({"stage": stage, "seconds": time.perf_counter() - wall,
                     "core_seconds": time.process_time() - cpu, "peak_mb": memory.look()})  # fmt: skip
        return result

    found = timed("table", lambda: faces.read(data, limit=count))
    timed("fingerprint", lambda: faces.fingerprint(data))
    pictures = timed("pixels", lambda: pixels.open_pictures(found, size, progress=False))
    timed("again", lambda: pixels.open_pictures(found, size, progress=False))
    timed("duplicates", lambda: dataset.find_twins(pictures))
    opened = timed("folds", lambda: dataset.open_dataset(data, limit=count, size=size))
    tasks = opened.tasks(["age", "gender"])

    def epoch() -> None:
        batches = Batches(opened.pixels, opened.rows("train"), 64, labels_of(opened.table, tasks), seed=0)
        for number in range(len(batches)):
            batches[number]

    timed("batches", epoch)
    return [{"faces": len(found.table), **row} for row in rows]


def met(data: str, count: int, size: int) -> float:
    """Share of all pairs of faces, as they are and not mirrored, that the search for near-duplicates looks at closely.

    Counted for 2,000 faces against all.
    """
    thumbs = pixels.open_pictures(faces.read(data, limit=count), size, progress=False).thumbs
    bits = duplicates.hashes(thumbs)
    asked = np.unique(np.linspace(0, len(bits) - 1, 2000).astype(int))
    near, _ = duplicates._Index(bits, duplicates.RADIUS).near(bits[asked])
    return float((len(near) - len(asked)) / (len(asked) * (len(bits) - 1)))  # each is near itself


def run(data: str, counts: list[int], size: int, out: str = "") -> int:
    """Measure `data` at each of `counts`, print, and write `out` (a CSV file, and JSON beside it) after each.

    What `out` holds of the other kind of faces (drawn, or photographs) stays there.
    """
    if min(counts) < 100:
        raise ValueError(f"--scale {min(counts)}: at least 100 faces are right")
    kind = DRAWN if data == "sample" else PHOTOGRAPHS
    table, records = pd.DataFrame(), {}
    if out and Path(out).is_file():
        table = pd.read_csv(out).query("kind != @kind")
        records = json.loads(Path(out).with_suffix(".json").read_text(encoding="utf-8"))
    records[kind] = record = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"), "code": provenance.git(),
        "size": size,
        "platform": f"{platform.system()} {platform.machine()}, {cores()} cores", "pairs_met": {}, "load": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        for count in sorted(counts):
            source, result = data, Path(place) / f"{count}.json"
            if kind == DRAWN:
                source = str(Path(place) / f"drawn{count}")
                vary(Path(source), count)
            task = {"data": source, "count": 0 if kind == DRAWN else count, "size": size}
            done = subprocess.run(
                [sys.executable, "-m", "agegender.scale", json.dumps(task), str(result)],
                env=os.environ | {"AGEGENDER_CACHE": f"{place}/cache{count}", "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            if done.returncode:
                said = f"{count:,} faces: the process ended with {done.returncode}\n{done.stderr[-2000:]}"
                print(said, file=sys.stderr)
                return 1
            found = json.loads(result.read_text())
            part = pd.DataFrame(found["rows"])
            table = pd.concat([table, part.assign(kind=kind)], ignore_index=True)
            record["pairs_met"][str(part["faces"].iloc[0])] = found["met"]
            record["load"].append(round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None)
            print(f"{part.round(1).to_string(index=False)}\n", flush=True)
            if out:
                with written_whole(out) as written:
                    table.round(3).to_csv(written, index=False)
                text = json.dumps(provenance.plain(records), indent=1) + "\n"
                with written_whole(Path(out).with_suffix(".json")) as written:
                    written.write_text(text, encoding="utf-8")
            shutil.rmtree(Path(place) / f"drawn{count}", ignore_errors=True)
            shutil.rmtree(Path(place) / f"cache{count}", ignore_errors=True)
    print(page(table, records))
    return 0


@dataclass(frozen=True)
class Growth:
    """How one stage grows.

    `million`: core seconds for a million faces by the fitted curve, with its 95 % interval. `slope`: megabytes more
    for each face, with its own. `square`: the curve has a part that grows with the square.
    """

    square: bool
    million: float
    low: float
    high: float
    slope: float
    slope_low: float
    slope_high: float


def growth(table: pd.DataFrame, square: bool = False) -> Growth:
    """The growth of one stage from rows of `measure` with at least three numbers of faces.

    Core seconds are fitted by a start, a part for each face and, with `square`, a part for each pair, every
    measurement weighted by its own size; without `square` that part is there only where its interval lies above 0.
    95 % intervals by Student's t; there is none for three numbers of faces and the square (then inf).
    """
    n, seconds, peak = (table[column].to_numpy(float) for column in ("faces", "core_seconds", "peak_mb"))
    if len(set(n)) < 3:
        raise ValueError(f"growth: {len(set(n))} numbers of faces; three at least are right")
    seconds = np.maximum(seconds, 0.01)  # what the clock can tell

    def fitted(*powers: int) -> tuple[np.ndarray, np.ndarray, float]:
        columns = (n[:, None] / MILLION) ** np.array(powers) / seconds[:, None]
        found = np.linalg.lstsq(columns, np.ones(len(n)), rcond=None)[0]
        free = len(n) - len(powers)
        if free < 1:
            return found, np.full((len(powers),) * 2, np.inf), np.inf
        spread = ((columns @ found - 1) ** 2).sum() / free
        return found, spread * np.linalg.inv(columns.T @ columns), stats.t.ppf(0.975, free)

    found, spread, quantile = fitted(0, 1, 2)
    curved = square or found[2] - quantile * np.sqrt(spread[2, 2]) > 0
    if not curved:
        found, spread, quantile = fitted(0, 1)
        if found[1] <= 0:  # noise alone: no stage takes less time for more faces
            found, spread, quantile = fitted(1)
    million, half = found.sum(), quantile * np.sqrt(spread.sum())  # at 1 million every power is 1
    memory = stats.linregress(n, peak)
    wide = stats.t.ppf(0.975, len(n) - 2) * memory.stderr
    return Growth(
        bool(curved), million, max(million - half, 0.0), million + half,
        memory.slope, memory.slope - wide, memory.slope + wide,
    )  # fmt: skip


def _time(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "no end known"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def page(table: pd.DataFrame, records: dict) -> str:
    """The measurements as Markdown: a table for each kind of faces, and sentences on what grows how."""
    said = []
    for kind, some in table.groupby("kind", sort=False):
        counts, record = sorted(some["faces"].unique()), records[kind]
        said.append(
            f"**{kind[0].upper()}{kind[1:]}**, measured at {', '.join(f'{count:,}' for count in counts)} "
            f"faces and {record['size']} pixels, {record['platform']}, {record['started'][:10]}:"
        )
        enough = len(counts) >= 3
        rows, bent = [], []
        for stage, title in STAGES.items():
            part = some[some["stage"] == stage]
            last = part[part["faces"] == counts[-1]].mean(numeric_only=True)
            cells = [title, _time(last["core_seconds"]), f"{last['peak_mb']:,.0f}"]
            if enough:
                found = growth(part, stage in PAIRS)
                cells += [
                    f"{_time(found.million)} [{_time(found.low)}, {_time(found.high)}]",
                    "{:+,.0f} [{:+,.0f}, {:+,.0f}]".format(
                        *(1e5 * mb for mb in (found.slope, found.slope_low, found.slope_high))
                    ),
                ]
                bent += [title] if found.square else []
            rows.append(cells)
        head = ["stage", f"core time of {counts[-1]:,}", "MB at most"]
        head += ["core time of a million", "MB more per 100,000"] if enough else []
        lines = [" | ".join(cells) for cells in (head, ["---"] * len(head), *rows)]
        said.append("\n".join(f"| {line} |" for line in lines))
        if enough:
            share = np.mean(list(record["pairs_met"].values()))
            said.append(
                f"The fit has a part that grows with the square of the number of faces in: {', '.join(bent)}; in all "
                "other stages a straight line fits. The search for near-duplicates looks closely at "
                f"{share:.1e} of all pairs."
            )
    return "\n\n".join(said)


def stored() -> str:
    """`page` of what is stored with the book, for its page on running again."""
    path = home() / STORED
    if not path.is_file():
        return "Nothing is stored in this copy: `python -m agegender bench --scale 5000 20000 50000` measures."
    return page(pd.read_csv(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    found = {"rows": measure(**task), "met": met(**task)}
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")

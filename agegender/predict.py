"""``python -m agegender predict``: what a trained model says of the faces in photographs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from agegender import faces, photos, trained
from agegender.places import cores, written_whole

# one row for each face; a photograph without one has a row that says why: `face` is then 0
COLUMNS = {
    "photo": "string", "face": "int64", "left": "Int64", "top": "Int64", "right": "Int64", "bottom": "Int64", "found": "float64",
    "age": "float64", "age_low": "float64", "age_high": "float64", "p_female": "float64", "gender": "string",
    "age_group": "string", "note": "string",
}  # fmt: skip
NO_FACE = "no face found"
CHUNK = 128  # faces the network is handed at a time: so many crops are in memory, and no photograph
FORMATS = (".csv", ".json")


def faces_of(
    paths: Sequence[Path], size: int, aligned: bool = False, wider: float = 1.0
) -> Iterator[tuple[Path, list[tuple[np.ndarray, tuple, float]], str]]:
    """For each photograph, in order: its faces as (pixels uint8 (size, size, 3), box, probability that it is a face), and
    the reason where there are none. Read and searched on all cores; `wider`: see ``photos.cut``."""
    finder = None if aligned else photos.Finder()

    def of(path: Path):
        try:
            if aligned:
                square, box = photos.aligned(path, size)
                return path, [(square, box, np.nan)], ""
            image = photos.read(path)
            found = [(photos.cut(image, face, size, wider), face.box, face.sure) for face in finder(image)]
            return path, found, "" if found else NO_FACE
        except (OSError, ValueError) as error:
            return path, [], str(error)

    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(paths), 4 * cores()):  # a bounded number of photographs is ahead of the network
            yield from pool.map(of, paths[start : start + 4 * cores()])


def answers(
    model: trained.Trained,
    paths: Sequence[Path],
    aligned: bool = False,
    sure: float = trained.SURE,
    wider: float = 1.0,
    seen: Callable[[int], None] = lambda count: None,
    crops: list | None = None,
) -> pd.DataFrame:
    """What `model` says of every face in the photographs `paths`: a table with COLUMNS, photographs in order.

    `aligned`: the pictures are crops like the training data's already. `seen` is told how many more photographs are
    done; `crops`, where given, is filled with the faces as the network got them, row for row of those with a face.
    Raises nothing for a photograph that cannot be read: its row says why.
    """
    parts: list[pd.DataFrame] = []
    waiting: list[dict] = []

    def ask() -> None:
        rows = [row for row in waiting if row["face"]]
        pictures = np.stack([row.pop("pixels") for row in rows]) if rows else np.empty((0, model.size, model.size, 3), np.uint8)
        said = model.answers(pictures)
        said["gender"] = trained.gender_words(said["p_female"], sure)
        for row, answer in zip(rows, said.to_dict("records")):
            row |= answer
        parts.append(pd.DataFrame(waiting, columns=list(COLUMNS)).astype(COLUMNS))
        if crops is not None:
            crops.extend(pictures)
        waiting.clear()

    for path, found, reason in faces_of(paths, model.size, aligned, wider):
        if not found:
            waiting.append({"photo": path.as_posix(), "face": 0, "note": reason})
        for number, (square, box, probability) in enumerate(found, 1):
            edges = dict(zip(("left", "top", "right", "bottom"), box))
            waiting.append({"photo": path.as_posix(), "face": number, **edges, "found": probability, "pixels": square})
        if len(waiting) >= CHUNK:
            ask()
        seen(1)
    ask()
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def spoken(row) -> str:
    """A row of `answers` in words: "34 years [27, 43], female (0.93)"."""
    if not row.face:
        return row.note
    said = []
    if not np.isnan(row.age):
        reach = f" [{row.age_low:.0f}, {row.age_high:.0f}]" if np.isfinite(row.age_high) else ""
        reach = f" [{row.age_low:.0f}, no limit]" if np.isinf(row.age_high) else reach
        said.append(f"{row.age:.0f} years{reach}")
    if not pd.isna(row.age_group):
        said.append(f"group {row.age_group}")
    if not np.isnan(row.p_female):
        chance = f"female {row.p_female:.2f}" if row.gender == "uncertain" else f"{max(row.p_female, 1 - row.p_female):.2f}"
        said.append(f"{row.gender} ({chance})")
    return ", ".join(said)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write `answers` as CSV or JSON (a list of objects; what is not told is null), by the file's name."""
    with written_whole(path) as part:
        if path.suffix.lower() == ".csv":
            table.to_csv(part, index=False)
            return
        kept = table.astype(object).where(table.notna(), None).replace({np.inf: "no limit"})
        part.write_text(json.dumps(kept.to_dict("records"), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def annotated(path: Path, table: pd.DataFrame) -> Image.Image:
    """A photograph with a numbered box and the answer for each of its faces; `table`: its rows of `answers`."""
    image = photos.read(path)
    draw = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 400))
    font = ImageFont.load_default(size=max(11, round(max(image.size) / 55)))
    for row in table[table["face"] > 0].itertuples():
        draw.rectangle([row.left, row.top, row.right, row.bottom], outline="white", width=line + 2)
        draw.rectangle([row.left, row.top, row.right, row.bottom], outline="black", width=line)
        text = f"{row.face}: {spoken(row)}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        x = max(0, min(row.left, image.width - (right - left) - 8))
        y = row.bottom if row.bottom + bottom + 8 < image.height else max(0, row.top - bottom - 8)
        draw.rectangle([x, y, x + right + 8, y + bottom + 8], fill="black")
        draw.text((x + 4, y + 2), text, fill="white", font=font)
    return image


def keep_annotated(table: pd.DataFrame, folder: Path) -> int:
    """Save an annotated copy of each photograph with a face, in `folder` in the same subfolders; returns how many."""
    there = table[table["face"] > 0]
    if there.empty:
        return 0
    top = Path(os.path.commonpath([Path(photo).resolve().parent for photo in there["photo"]]))
    for photo, rows in there.groupby("photo", sort=False):
        place = Path(photo).resolve().relative_to(top)
        copy = annotated(Path(photo), rows)
        with written_whole(folder / place.with_name(f"{place.name}.annotated.jpg")) as part:
            copy.save(part, "JPEG", quality=92)
    return there["photo"].nunique()


def chosen(asked: str, limit: int = 0) -> tuple[list[Path], bool]:
    """The photographs that a notebook means, at most `limit` of them (0: all), and whether they are the drawn sample's faces,
    of which they are spread over all names, which begin with the age."""
    if asked != "sample":
        return photos.files([asked])[0][: limit or None], False
    found = faces.read("sample")
    files = found.table["file"].to_numpy()
    if limit and limit < len(files):
        files = files[np.linspace(0, len(files) - 1, limit).astype(int)]
    return [found.root / file for file in files], True


def short(names: Sequence[str]) -> list[str]:
    """Names of photographs from the folder on that holds them all."""
    top = Path(os.path.commonpath([Path(name).parent for name in names]))
    return [Path(name).relative_to(top).as_posix() for name in names]


def words(table: pd.DataFrame, drawn: bool = False) -> str:
    """How many photographs, faces and failures a table of `answers` holds."""
    there = table["face"] > 0
    said = f"Photographs: {table['photo'].nunique():,}; faces: {there.sum():,}."
    for note, some in table[~there].groupby("note"):
        said += f" {note[:1].upper()}{note[1:]}: {', '.join(some['photo'].head(5))}{' and others' * (len(some) > 5)}."
    unsure = int((table["gender"] == "uncertain").sum())
    said += f" For {unsure:,} no gender is told." if unsure else ""
    return said + (" The faces are drawn by a program: what a model says of them describes nobody." if drawn else "")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`answers` for a page: years and probabilities rounded, what the model does not tell left out."""
    page = table[["photo", "face"]].copy()
    page["age"] = ["" if np.isnan(row.age) else spoken(row).split(" years")[0] for row in table.itertuples()]
    page["90 % interval"] = [
        "" if np.isnan(row.age_high) else f"{row.age_low:.0f} to {row.age_high:.0f}" if np.isfinite(row.age_high) else "no limit"
        for row in table.itertuples()
    ]
    page["gender"] = table["gender"].fillna("")
    page["female"] = ["" if np.isnan(p) else f"{p:.2f}" for p in table["p_female"]]
    page["age group"], page["note"] = table["age_group"].fillna(""), table["note"].fillna("")
    return page.loc[:, [name for name in page if name in ("photo", "face") or (page[name] != "").any()]]


def caption(row) -> str:
    """A row of `answers` in two short lines, for a grid of faces."""
    return spoken(row).replace(", ", "\n").replace("\n", ", ", 1) if "[" in spoken(row) else spoken(row).replace(", ", "\n")


def pictures(paths: Sequence[Path], table: pd.DataFrame, count: int) -> dict[str, np.ndarray]:
    """The first `count` photographs with a face by their name in `table` (see `short`), annotated; uint8 (h, w, 3)."""
    there = table[table["face"] > 0]
    named = dict(zip(short([path.as_posix() for path in paths]), paths))
    return {name: np.asarray(annotated(named[name], there[there["photo"] == name])) for name in there["photo"].unique()[:count]}


def pictures_title(shown: dict, ready: bool) -> str:
    """A title for `pictures`; `ready`: no faces were looked for."""
    if ready:
        return "The pictures are crops already: no faces were looked for"
    return f"{len(shown)} photographs with the faces found" if shown else "No face was found"


def wider_words(table: pd.DataFrame, others: dict[float, pd.DataFrame]) -> str:
    """How far the answers about the same faces move when they are cut wider or narrower."""
    if not others:
        return "The pictures are crops already: how wide they are cut is not ours to change."
    said = []
    for wider, other in others.items():
        both = (table["face"] > 0) & (other["face"] > 0) & table["age"].notna()
        if not both.any():
            return "No face has an age to compare."
        moved = (other["age"] - table["age"])[both]
        turned = ((other["p_female"] > 0.5) != (table["p_female"] > 0.5))[both & table["p_female"].notna()]
        said.append(
            f"cut {wider:g} times as wide, the same {both.sum():,} faces are taken for {moved.abs().mean():.1f} years older or "
            f"younger on average (with the sign {moved.mean():+.1f}), and {turned.sum():,} change their likelier gender"
        )
    return f"On these photographs: {'; '.join(said)}."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photographs, folders or patterns")
    parser.add_argument("--model", default=trained.RELEASED, metavar="RUN", help='folder of a finished run, or "released" (default)')
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the answers as .csv or .json")
    parser.add_argument("--annotated", type=Path, metavar="FOLDER", help="keep copies of the photographs with boxes and answers")
    parser.add_argument("--aligned", action="store_true", help="the pictures are crops like UTKFace's: look for no faces")
    parser.add_argument(
        "--sure", type=float, default=trained.SURE, metavar="P", help=f"tell a gender from this probability on ({trained.SURE:g})"
    )


def run(given: argparse.Namespace) -> int:
    """Print the answers, and keep them where asked; 1 where a photograph could not be read, 2 where nothing could start."""
    try:
        if given.out and given.out.suffix.lower() not in FORMATS:
            raise ValueError(f"--out {given.out}: a name that ends in {' or '.join(FORMATS)} would be right")
        if not 0.5 <= given.sure <= 1:
            raise ValueError(f"--sure {given.sure}: a probability from 0.5 (always tell one) to 1 would be right")
        paths, others = photos.files(given.photos)
        model = trained.load(given.model)
        with tqdm(total=len(paths), unit="photo", disable=None) as bar:
            table = answers(model, paths, given.aligned, given.sure, seen=bar.update)
        if given.out:
            write(table, given.out)
        kept = keep_annotated(table, given.annotated) if given.annotated else 0
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    for photo, rows in table.groupby("photo", sort=False):
        for row in rows.itertuples():
            place = f" {row.face} ({row.left},{row.top})-({row.right},{row.bottom})" if row.face else ""
            print(f"{photo}{place}: {spoken(row)}")
    there, failed = int((table["face"] > 0).sum()), table[(table["face"] == 0) & (table["note"] != NO_FACE)]
    none = int((table["note"] == NO_FACE).sum())
    counts = {
        "photographs": len(paths), "faces": there, "without a face": none, "could not be read": len(failed),
        "other files left alone": others, f"annotated copies in {given.annotated}": kept,
    }  # fmt: skip
    said = ", ".join(f"{name}: {count:,}" for name, count in counts.items() if count or name == "faces")
    print(f"{said}. Model: {model.title}.", file=sys.stderr)
    print(textwrap.fill(WARNING, 100), file=sys.stderr)
    return 1 if len(failed) else 0


WARNING = (
    "Estimates of how old a face looks, and of which gender it would be labelled: wrong for many people, and no ground for "
    "any decision about a person (book/must_not.md). In brackets: 90 % intervals, for faces like UTKFace's."
)

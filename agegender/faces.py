"""One table of faces from any source, and an account of every face that could not be used.

Sources: a UTKFace folder, Kaggle's ``age_gender.csv``, your own ``labels.csv``, the drawn sample.
Only names, labels and file sizes are read here; the pictures are opened by `agegender.pixels`,
which hands what it cannot decode to `Faces.set_aside`. Rows of a CSV are counted as a spreadsheet
shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import posixpath
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from . import places

GENDERS = ("male", "female")  # the position is UTKFace's code, here and in RACES
RACES = ("White", "Black", "Asian", "Indian", "Others")
MAX_AGE = 116  # the oldest in UTKFace
ADULT = 18  # years
AGE_BANDS = ((0, 5), (6, 12), (13, 17), (18, 25), (26, 35), (36, 50), (51, 65), (66, MAX_AGE))  # inclusive

UTKFACE, AGE_GENDER_CSV, LABELS_CSV = "UTKFace folder", "age_gender.csv", "labels.csv"
DRAWN = "drawn sample"
COLUMNS = ["file", "age", "gender", "race", "person"]
HINT = 'To get UTKFace: python -m agegender data fetch. To do without: the drawn sample, data = "sample".'

# The dot may be missing and a space may stray in, as in UTKFace: "...657 .jpg.chip.jpg", "...357jpg".
_PICTURE = re.compile(r"[.\d]\s*(jpe?g|png|webp|bmp)\s*$", re.IGNORECASE)
# age_gender_race_anything, or, where the race is missing, age_gender_date with at least eight digits.
_UTKFACE_NAME = re.compile(r"(-?\d*)_(-?\d*)_(?:(-?\d{0,3})_(?=[^.])|(?=\d{8}))")
_UNKNOWN = ("", "na", "nan", "<na>", "null", "none")
_GENDER_CODES = {"0": 0, "0.0": 0, "m": 0, "male": 0, "1": 1, "1.0": 1, "f": 1, "female": 1}
_RACE_CODES = {
    **{str(code): code for code in range(len(RACES))},
    **{f"{code}.0": code for code in range(len(RACES))},  # whole numbers with gaps, as pandas saves them
    **{race.lower(): code for code, race in enumerate(RACES)},
}
_SIDE = 48  # pixels, age_gender.csv


@dataclass(frozen=True, eq=False)
class Faces:
    """The usable faces of one source, and the faces set aside. Never empty.

    `table`: one row per face, sorted by file: ``file`` (str, posix path below `root`, unique), ``age``
    (float64, years, NaN unknown), ``gender`` (Int8, 0 male, 1 female, <NA> unknown), ``race`` (Int8,
    position in `RACES`, <NA> unknown), ``person`` (object: str or None).
    `aside`: ``file``, ``reason``, one row per face that was found and cannot be used.
    Raises ValueError unless ``len(table) + len(aside) == found``, or if no face is usable.
    """

    table: pd.DataFrame
    aside: pd.DataFrame
    root: Path
    title: str  # short, for pages: never a full path
    kind: str  # UTKFACE, AGE_GENDER_CSV, LABELS_CSV or DRAWN
    found: int
    limited_from: int | None = None  # how many faces the source holds, where `limit` chose `found` of them
    notes: tuple[str, ...] = field(default=())  # what a reader should know of the source, in sentences

    def __post_init__(self) -> None:
        if list(self.table.columns) != COLUMNS or list(self.aside.columns) != ["file", "reason"]:
            raise ValueError(f"columns of table and aside must be {COLUMNS} and ['file', 'reason']")
        if len(self.table) + len(self.aside) != self.found:
            read, aside = len(self.table), len(self.aside)
            raise ValueError(f"{self.title}: {read} read + {aside} set aside is not {self.found} found")
        if self.table["file"].duplicated().any():
            raise ValueError(f"{self.title}: a file is in the table twice")
        if self.table.empty:
            first = "".join(f"\n  {face.file}: {face.reason}" for face in self.aside.head(3).itertuples())
            raise ValueError(
                f"{self.title} ({self.root}): none of the {self.found} faces found can be used."
                f" First reasons:{first}\n{HINT}"
            )

    @property
    def drawn(self) -> bool:
        return self.kind == DRAWN

    @property
    def notice(self) -> str:
        """What every page made from these faces must say; "" for photographs."""
        return "These faces are drawn; the numbers on this page describe no people." if self.drawn else ""

    def counts(self) -> dict[str, int]:
        """``found``, ``read`` and ``set_aside``; the last two add up to the first."""
        return {"found": self.found, "read": len(self.table), "set_aside": len(self.aside)}

    def set_aside(self, reasons: Mapping[str, str]) -> Faces:
        """The same faces with the files in `reasons` (file -> reason) moved from `table` to `aside`.

        Raises ValueError for a file that is not in `table`, or if no face is left.
        """
        if unknown := sorted(set(reasons) - set(self.table["file"])):
            raise ValueError(f"cannot set aside {unknown[0]!r}: it is not in the table of {self.title}")
        leaving = self.table["file"].isin(list(reasons))
        aside = [*self.aside.itertuples(index=False, name=None), *reasons.items()]
        return replace(self, table=self.table[~leaving].reset_index(drop=True), aside=_aside_table(aside))


def age_band(age) -> pd.Categorical:
    """Ordered labels "0-5" ... "66+" of ages in years (anything array-like); a missing age stays missing.

    Fractions count as the last birthday: 5.9 is in "0-5". The last band has no end. Raises ValueError
    for a negative age.
    """
    years = pd.to_numeric(pd.Series(age)).to_numpy(dtype=float, na_value=np.nan)
    if (years < 0).any():
        raise ValueError(f"age {np.nanmin(years)} is impossible: 0 or more years are right")
    labels = [f"{low}-{high}" for low, high in AGE_BANDS[:-1]] + [f"{AGE_BANDS[-1][0]}+"]
    return pd.cut(years, [low for low, _ in AGE_BANDS] + [np.inf], right=False, labels=labels)


def read(data: str | Path = "sample", person: str = "", limit: int = 0) -> Faces:
    r"""The faces of a source.

    `data`: "sample" (drawn), a folder, or a CSV file. A folder that holds ``labels.csv`` is read by it; one
    that holds a single CSV and no pictures is read by that; any other is read by its files' names, as
    UTKFace's ``[age]_[gender]_[race]_[date&time].jpg.chip.jpg``, subfolders included. A relative path counts
    from the current folder and, if nothing is there, from `places.home()`.

    `person`: a regular expression, searched in each file's path below the folder, whose one group (or group
    named ``person``) is the person's identifier. An identifier at the start of a name is taken off before
    the rest is read as a UTKFace name (``anna-25_1_0_2017....jpg`` with ``(\w+)-``). It goes before a
    column ``person``. Faces it does not match get None; it must match one at least.

    `limit`: use about that many faces (0: all), chosen by a hash of their names, so that the same faces are
    chosen whatever the order of files; whole persons where known, so that the last one may go past the
    limit. The choice is made among all faces found, usable or not: `found` counts the chosen ones and
    `limited_from` what there was.

    Raises FileNotFoundError or ValueError, naming file, row and value, where the whole source is unusable.
    """
    pattern = _person_pattern(person)
    if limit < 0:
        raise ValueError(f"limit {limit} is impossible: 0 (all faces) or more is right")
    kind, path = _find(data)
    root = path if path.is_dir() else path.parent
    if kind == LABELS_CSV:
        usable, aside, notes = _read_labels(path, pattern)
    elif kind == AGE_GENDER_CSV:
        root = _pictures_of_csv(path)
        usable, aside, notes = _read_names(root, pattern)
        aside += [tuple(row) for row in json.loads((root / "aside.json").read_text(encoding="utf-8"))]
    else:
        usable, aside, notes = _read_names(path, pattern)
        if kind == DRAWN and not pattern:
            truth = pd.read_csv(path / "truth.csv", usecols=["file", "person"], dtype=str).dropna()
            people = dict(zip(truth["file"], truth["person"]))
            usable = [(*face[:4], people.get(face[0])) for face in usable]
    there = len(usable) + len(aside)
    if not there:
        raise ValueError(f"{path} holds no faces: {_expected(path)}\n{HINT}")
    if pattern and usable:
        matched = sum(face[4] is not None for face in usable)
        if not matched:
            first = min(face[0] for face in usable)
            raise ValueError(f"person pattern {person!r} matches none of {len(usable)} names, as {first!r}")
        if matched < len(usable):
            notes.append(f"The person pattern does not match {len(usable) - matched} of {len(usable)} names.")
    if 0 < limit < there:
        usable, aside = _chosen(usable, aside, limit)
    return Faces(
        table=_table(usable),
        aside=_aside_table(aside),
        root=root,
        title=_title(kind, path),
        kind=kind,
        found=len(usable) + len(aside),
        limited_from=there if 0 < limit < there else None,
        notes=tuple(notes),
    )


def fingerprint(data: str | Path) -> str:
    """A digest that changes with the names, sizes and times of a source's files; no picture is opened.

    "sample" has a constant one: what it draws follows from the code. Raises as `read` does for what is
    not there.
    """
    if str(data) == "sample":
        return "sample"
    kind, path = _find(data)
    files = [(path.name, path.stat())] if path.is_file() else []
    if kind != AGE_GENDER_CSV:
        files += _pictures(path if path.is_dir() else path.parent)
    stats = sorted((name, *((found.st_size, found.st_mtime_ns) if found else ())) for name, found in files)
    return hashlib.blake2b(repr((kind, stats)).encode(), digest_size=16).hexdigest()


# Finding the source


def _find(data: str | Path) -> tuple[str, Path]:
    """Kind of the source and the CSV or folder to read it from."""
    if str(data) == "sample":
        from . import sample

        return DRAWN, sample.folder()
    if not str(data).strip():
        raise ValueError(f"data is empty: name a folder, a CSV file or \"sample\". {HINT}")
    named = Path(data).expanduser()
    tried = list(dict.fromkeys(Path(os.path.abspath(start / named)) for start in (Path.cwd(), places.home())))
    path = next((place for place in tried if place.exists()), None)
    if path is None:
        raise FileNotFoundError(f"no faces at {str(data)!r}: tried {' and '.join(map(str, tried))}\n{HINT}")
    if path.is_file():
        return _kind_of_csv(path), path
    if not path.is_dir():
        raise ValueError(f"{path} is neither a folder nor a file")
    if (path / "labels.csv").is_file():
        return LABELS_CSV, path / "labels.csv"
    if _is_drawn(path):
        return DRAWN, path
    tables = [table for table in path.glob("*.csv") if not table.name.startswith(".")]
    if len(tables) == 1 and next(_pictures(path), None) is None:
        return _kind_of_csv(tables[0]), tables[0]
    return UTKFACE, path


def _kind_of_csv(path: Path) -> str:
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{path} is neither a folder nor a .csv (an archive must be unpacked first)\n{HINT}")
    return AGE_GENDER_CSV if "pixels" in _header(path) else LABELS_CSV


def _is_drawn(folder: Path) -> bool:
    """Whether `agegender.sample` drew this folder, so that it is called drawn under any name."""
    truth = folder / "truth.csv"
    return truth.is_file() and {"file", "person", "twin_of"} <= set(_header(truth))


def _title(kind: str, path: Path) -> str:
    if kind == DRAWN:
        return DRAWN
    return path.parent.name if kind == LABELS_CSV else path.name


def _expected(path: Path) -> str:
    if path.is_file():
        return "it has a header and no rows below it"
    return (
        "pictures (.jpg, .jpeg, .png, .webp, .bmp) named [age]_[gender]_[race]_[date&time], or a labels.csv"
        " beside pictures of any name, are right"
    )


def _pictures(root: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Path below `root` and stat of each file with a picture's name; hidden ones are left out.

    The stat is None where a link leads nowhere. A link to a folder comes back as if it were a picture:
    followed, it could lead round in a circle; left out, its faces would be missing unseen.
    """
    folders = [""]
    while folders:
        below = folders.pop()
        with os.scandir(root / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{below}{entry.name}/")
                elif _PICTURE.search(entry.name) or (entry.is_symlink() and entry.is_dir()):
                    try:
                        yield below + entry.name, entry.stat()
                    except FileNotFoundError:
                        yield below + entry.name, None


def _check_file(found: os.stat_result | None) -> None:
    """Raise ValueError with the reason unless `found` is the stat of a file with something in it."""
    if found is None:
        raise ValueError("there is no such file")
    if stat.S_ISDIR(found.st_mode):
        raise ValueError("this is a folder: a picture is right (give a linked folder as data itself)")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("this is no regular file")
    if not found.st_size:
        raise ValueError("the file is empty (0 bytes)")


# Labels


def _age(text: str) -> float:
    if text.lower() in _UNKNOWN:
        return math.nan
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not 0 <= age <= MAX_AGE:
        raise ValueError(f"age {text!r} is impossible: a number of years from 0 to {MAX_AGE} is right")
    return age


def _gender(text: str) -> int | None:
    if text.lower() in _UNKNOWN:
        return None
    if text.lower() not in _GENDER_CODES:
        raise ValueError(f"gender {text!r} is impossible: 0, m or male, or 1, f or female is right")
    return _GENDER_CODES[text.lower()]


def _race(text: str) -> int | None:
    if text.lower() in _UNKNOWN:
        return None
    if text.lower() not in _RACE_CODES:
        named = ", ".join(f"{code} ({race})" for code, race in enumerate(RACES))
        raise ValueError(f"race {text!r} is impossible: one of {named} is right")
    return _RACE_CODES[text.lower()]


def _labels_of_name(name: str) -> tuple[float, int, int | None]:
    """Age, gender and race (None where missing) of a UTKFace name without its folder."""
    match = _UTKFACE_NAME.match(name)
    if match is None:
        raise ValueError("the name is not [age]_[gender]_[race]_[date&time].jpg")
    age, gender, race = match.groups(default="")
    if not age or not gender:
        missing = "gender" if age else "age"
        raise ValueError(f"the name gives no {missing}: [age]_[gender]_[race]_[date&time].jpg is right")
    return _age(age), _gender(gender), _race(race)


def _person_pattern(person: str) -> re.Pattern[str] | None:
    if not person:
        return None
    try:
        pattern = re.compile(person)
    except re.error as error:
        raise ValueError(f"person pattern {person!r} is no regular expression: {error}") from error
    if pattern.groups != 1 and "person" not in pattern.groupindex:
        raise ValueError(
            f"person pattern {person!r} has {pattern.groups} groups: one, or one named (?P<person>), is right"
        )
    return pattern


def _person_in(file: str, pattern: re.Pattern[str] | None) -> tuple[str | None, str]:
    """The person's identifier (or None), and the file's name without folder and leading identifier."""
    start = file.rfind("/") + 1
    match = pattern.search(file) if pattern else None
    group = "person" if pattern and "person" in pattern.groupindex else 1
    if match is None or not match[group]:
        return None, file[start:]
    rest = file[match.end(group) :].lstrip("_- .") if match.start(group) == start else file[start:]
    return match[group], rest


# Reading each kind: usable faces as rows of COLUMNS, faces set aside as (file, reason), notes


def _read_names(root: Path, pattern: re.Pattern[str] | None) -> tuple[list[tuple], list[tuple], list[str]]:
    usable, aside, names = [], [], defaultdict(set)
    for file, found in _pictures(root):
        try:
            if not file.isprintable():  # also bytes that are no UTF-8, which no table can hold
                raise ValueError("the name holds characters that cannot be printed: rename the file")
            _check_file(found)
            person, name = _person_in(file, pattern)
            usable.append((file, *_labels_of_name(name), person))
            names[file.rpartition("/")[2]].add(file)
        except ValueError as error:
            aside.append((file if file.isprintable() else ascii(file), str(error)))
    repeated = [sorted(files) for files in names.values() if len(files) > 1]
    if not repeated:
        return usable, aside, []
    first = " and ".join(min(repeated)[:2])  # as in Kaggle's archive of UTKFace
    return usable, aside, [f"{len(repeated)} file names occur in several folders, as {first}."]


def _read_labels(path: Path, pattern: re.Pattern[str] | None) -> tuple[list[tuple], list[tuple], list[str]]:
    root, header, notes = path.parent, _header(path), []
    column = "file" if "file" in header else "path"
    if column not in header or not {"age", "gender"} & set(header):
        raise ValueError(
            f"{path}, row 1: columns {', '.join(header)}; file (or path) and age or gender, or both,"
            f" are right, and race and person may stand beside them\n{HINT}"
        )
    if unused := [name for name in header if name not in (column, *COLUMNS)]:
        notes.append(f"Columns of {path.name} that were not used: {', '.join(unused)}.")
    if pattern and "person" in header:
        notes.append(f"The person pattern was used, not the column person of {path.name}.")

    @lru_cache(maxsize=None)
    def real_folder(folder: str) -> str:
        return os.path.realpath(root / folder)

    top = real_folder("")
    rows: dict[str, list[tuple[int, tuple]]] = defaultdict(list)  # file -> its rows, numbered
    aside = []
    for number, row in _rows(path):
        try:
            if None in row or None in row.values():
                raise ValueError(f"{len(header)} values, as many as the header has, are right")
            row = {name: value.strip() for name, value in row.items()}
            file = _path_below(row[column])
            try:
                found = os.lstat(root / file)
                real = os.path.join(real_folder(posixpath.dirname(file)), posixpath.basename(file))
                if stat.S_ISLNK(found.st_mode):
                    real, found = os.path.realpath(real), os.stat(root / file)
            except OSError:  # missing, a link to nothing, a file taken for a folder
                raise ValueError(f"{column} {row[column]!r}: there is no such file in {root.name}") from None
            if os.path.commonpath([top, real]) != top:
                raise ValueError(f"{column} {row[column]!r} leads out of the folder through a link")
            _check_file(found)
            labels = _age(row.get("age", "")), _gender(row.get("gender", "")), _race(row.get("race", ""))
            if math.isnan(labels[0]) and labels[1] is None:
                raise ValueError("neither age nor gender is given: one of them at least is right")
            person = _person_in(file, pattern)[0] if pattern else row.get("person") or None
            rows[file].append((number, (file, *labels, person)))
        except ValueError as error:
            name = row.get(column) or f"row {number}"
            aside.append((name, f"{path.name}, row {number}: {error}"))
    usable = []
    for file, lines in rows.items():
        # NaN is not equal to itself, so rows are compared as text.
        if len({repr(face) for _, face in lines}) > 1:
            numbers = " and ".join(str(number) for number, _ in lines)
            aside += [(file, f"{path.name}, row {n}: rows {numbers} contradict each other") for n, _ in lines]
            continue
        usable.append(lines[0][1])
        aside += [(file, f"{path.name}, row {n}: the same as row {lines[0][0]}") for n, _ in lines[1:]]
    named = {*rows, *(file for file, _ in aside)}
    if others := sum(file not in named for file, _ in _pictures(root)):
        notes.append(f"{others} pictures in the folder are not named in {path.name} and were left alone.")
    return usable, aside, notes


def _path_below(text: str) -> str:
    """`text` as a posix path below the folder, or ValueError. Windows' separators are taken as well."""
    if not text or not text.isprintable():
        raise ValueError(f"file {text!r}: a path below the folder is right")
    file = text.replace("\\", "/")
    if file.startswith("/") or PureWindowsPath(text).drive:
        raise ValueError(f"file {text!r} is absolute: a path below the folder is right")
    file = posixpath.normpath(file)
    if file == ".." or file.startswith("../"):
        raise ValueError(f"file {text!r} leaves the folder: a path below it is right")
    return file


def _pictures_of_csv(path: Path) -> Path:
    """The folder of PNG files, named as in UTKFace, that ``age_gender.csv`` was or is now turned into.

    One row is in memory at a time. ``aside.json`` beside the pictures lists (img_name, reason).
    """
    missing = {"age", "gender", "img_name", "pixels"} - set(_header(path))
    if missing:
        raise ValueError(
            f"{path}, row 1: no column {', '.join(sorted(missing))};"
            " age, ethnicity, gender, img_name, pixels are right"
        )
    key = repr((path.name, path.stat().st_size, path.stat().st_mtime_ns, "form 1"))
    folder = places.cache() / f"age_gender-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        with places.written_whole(folder) as part:
            part.mkdir()
            first_row: dict[str, int] = {}  # img_name alone is no key: faces cut from one photograph share it
            aside = []
            for number, row in tqdm(_rows(path), desc=f"unpacking {path.name}", unit=" faces", disable=None):
                try:
                    name, pixels = _face_of_row(row)
                    first = first_row.setdefault(name.casefold(), number)
                    if first != number:
                        raise ValueError(f"img_name {row['img_name']!r} with the same labels as row {first}")
                    Image.fromarray(pixels).save(part / name, compress_level=1)
                except ValueError as error:
                    named = row.get("img_name") or f"row {number}"
                    aside.append((named, f"{path.name}, row {number}: {error}"))
            (part / "aside.json").write_text(json.dumps(aside), encoding="utf-8")
    return folder


def _face_of_row(row: dict[str, str]) -> tuple[str, np.ndarray]:
    """UTKFace name (.png) and grey pixels (48, 48) uint8 of one row of ``age_gender.csv``."""
    if None in row or None in row.values():
        raise ValueError("as many values as the header has are right")
    age, gender = _age(row["age"].strip()), _gender(row["gender"].strip())
    race = _race(row.get("ethnicity", "").strip())
    if math.isnan(age) or gender is None:
        raise ValueError(f"no {'age' if math.isnan(age) else 'gender'} is given")
    if age != int(age):
        raise ValueError(f"age {row['age']!r}: whole years are right")
    name = row["img_name"].strip().removesuffix(".jpg").removesuffix(".chip").removesuffix(".jpg")
    if not re.fullmatch(r"\w[\w .()-]{0,99}", name):
        raise ValueError(f"img_name {row['img_name']!r}: a file name without a folder is right")
    values = row["pixels"].split()
    if len(values) != _SIDE**2:
        raise ValueError(f"pixels: {len(values)} values; {_SIDE} x {_SIDE} = {_SIDE**2} are right")
    try:
        pixels = np.array([int(value) for value in values])
        wrong = pixels[(pixels < 0) | (pixels > 255)]
    except ValueError:
        wrong = [value for value in values if not value.isdecimal()]
    if len(wrong):
        raise ValueError(f"pixels: value {wrong[0]}; whole numbers from 0 to 255 are right")
    name = f"{int(age)}_{gender}_{'' if race is None else race}_{name}.png"
    return name, pixels.astype(np.uint8).reshape(_SIDE, _SIDE)


# CSV files and tables


def _header(path: Path) -> list[str]:
    """Column names in small letters. Raises ValueError for an empty file, a name twice, or no UTF-8."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            first = lines.readline(10_000)
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    names = next(csv.reader([first], delimiter=_delimiter(first)), [])
    names = [name.strip().lower() for name in names]
    if not any(names):
        raise ValueError(f"{path}, row 1 is empty: column names are right (file, age, gender)\n{HINT}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}, row 1: column {twice[0]!r} is there twice")
    return names


def _delimiter(header: str) -> str:
    # Spreadsheets write semicolons where the comma is the decimal sign.
    return ";" if ";" in header and "," not in header else ","


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Row number and values by column, one row at a time; rows without any value are passed over.

    As in csv.DictReader, values past the header stand under None and missing ones are None.
    """
    header = _header(path)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        delimiter = _delimiter(lines.readline())
        reader = csv.reader(lines, delimiter=delimiter)
        number = 1
        try:
            for number, values in enumerate(reader, start=2):
                if any(value.strip() for value in values):
                    row = dict(zip(header, values + [None] * (len(header) - len(values))))
                    if len(values) > len(header):
                        row[None] = values[len(header) :]
                    yield number, row
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except csv.Error as error:
            raise ValueError(f"{path} cannot be read after row {number}: {error}") from error


def _not_utf8(path: Path) -> ValueError:
    """The error that names the first line of `path` that is no UTF-8 (decoding runs ahead of the rows)."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                break
    return ValueError(f"{path}, row {number}: {line[:60]!r} is not UTF-8; save the table as CSV UTF-8")


def _table(usable: Iterable[tuple]) -> pd.DataFrame:
    file, age, gender, race, person = zip(*sorted(usable, key=lambda face: face[0])) if usable else [()] * 5
    return pd.DataFrame(
        {
            "file": pd.Series(file, dtype="str"),
            "age": np.array(age, dtype=np.float64),
            "gender": pd.array(gender, dtype="Int8"),
            "race": pd.array(race, dtype="Int8"),
            "person": pd.Series(person, dtype=object),
        }
    )


def _aside_table(aside: Iterable[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(sorted(aside), columns=["file", "reason"], dtype="str")


def _chosen(usable: list[tuple], aside: list[tuple], limit: int) -> tuple[list[tuple], list[tuple]]:
    """Whole persons (single faces where unknown) in the order of a hash, until `limit` is reached."""
    groups: dict[tuple[str, str], list[tuple]] = defaultdict(list)
    for face in usable:
        groups[("file", face[0]) if face[4] is None else ("person", face[4])].append(face)
    for face in aside:
        groups["file", face[0]].append(face)
    chosen: list[tuple] = []
    for key in sorted(groups, key=lambda key: hashlib.blake2b(repr(key).encode()).digest()):
        if len(chosen) >= limit:
            break
        chosen += groups[key]
    return [face for face in chosen if len(face) == len(COLUMNS)], [face for face in chosen if len(face) == 2]

"""Training, validation and test: who goes where, what leaks between them, and balancing the training part.

Chance is drawn from the files' names and the seed, so a face lands in the same part whatever the order of
the rows, the machine and the versions of the libraries. scikit-learn's StratifiedGroupKFold balances as well,
but it makes equal folds only, needs ten times as long, and its lists change with the order of the rows.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from agegender.duplicates import components
from agegender.faces import age_band

FOLDS = ("train", "val", "test")
UNUSED = ""  # the part of a face that a published list doesn't name
UNKNOWN = "unknown"


def split(
    table: pd.DataFrame,
    groups: np.ndarray,
    kind: str = "grouped",
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    names: str | Path = "",
) -> np.ndarray:
    """The part of each face: array of str (n,), "train", "val" or "test".

    Parameters
    ----------
    table : as `Faces.table` (file, age, gender, person).
    groups : int (n,), faces of one photograph have one number, as `duplicates.find` gives them.
    kind : "grouped": no group and no person is divided; age bands and genders have the same shares in each
        part as nearly as that allows; unknown labels count as a band and a gender of their own.
        "random": each face by itself, as most published figures have it; for showing what leaks.
        "published": by the lists in `names` (see `listed`); faces they don't name get "". Where the lists
        have no "test", the faces they don't name are it, less those in a group with a face they name. Where
        they have no "val", shares[1] / (shares[0] + shares[1]) of their training faces become it, as in "grouped".
        Warns of listed files that are not in the table; `coverage` counts them.
    shares : of faces in training, validation and test; they sum to 1.
    seed : another seed gives another split.
    """
    groups = _checked(table, groups)
    shares = np.asarray(shares, dtype=float)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"shares: expected three numbers from 0 that sum to 1, got {tuple(shares.tolist())}")
    if bool(names) != (kind == "published"):
        raise ValueError('names: a list of files goes with kind "published" and only with it; '
                         f"kind is {kind!r}, names is {str(names)!r}")
    if kind == "grouped":
        folds = _grouped(table, groups, shares, seed)
    elif kind == "random":
        place = np.argsort(np.argsort(_lots(table["file"], seed), kind="stable"))
        ends = np.rint(shares.cumsum()[:2] * len(table))
        folds = np.asarray(FOLDS)[np.searchsorted(ends, place, side="right")]
    elif kind == "published":
        folds = _published(table, groups, shares, seed, Path(names))
    else:
        raise ValueError(f'kind: expected "grouped", "random" or "published", got {kind!r}')
    empty = [fold for fold, share in zip(FOLDS, shares) if share > 0 and not (folds == fold).any()]
    if empty:
        raise ValueError(f"no faces are left for {', '.join(empty)}: {len(table)} faces in "
                         f"{len(np.unique(groups))} groups are too few for shares {tuple(shares.tolist())}")
    return folds


def together(groups: np.ndarray, person: pd.Series | None = None) -> np.ndarray:
    """Groups joined where they share a person: int64 (n,), the first position of each. None is no person."""
    n = len(groups)
    first = pd.Series(np.arange(n)).groupby(np.asarray(groups)).transform("first").to_numpy()
    links = [first]
    if person is not None:
        known = pd.Series(person).reset_index(drop=True)
        # a face without a person is linked to itself only
        links.append(pd.Series(np.arange(n)).groupby(known).transform("first").fillna(pd.Series(np.arange(n)))
                     .to_numpy(dtype=np.int64))
    return components(n, np.tile(np.arange(n), len(links)), np.concatenate(links))


def _grouped(table: pd.DataFrame, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Greedy: the largest groups first, each to the part that its kind of faces has filled least.

    How full a part is of a stratum is (faces there + half of those coming) / (share x faces of the stratum in
    all): for single faces that is Webster's way of giving out seats. All faces together count as one more
    stratum, as much as the others together, or many small strata would all round to the largest part.
    """
    if not len(table):
        raise ValueError("no faces to split")
    joined = together(groups, table["person"])
    stratum = pd.factorize(_bands(table) + " " + _genders(table), sort=True)[0]
    lots = pd.Series(_lots(table["file"], seed)).groupby(joined).min()
    counts = pd.crosstab(joined, stratum)                      # row: a group, column: a stratum
    order = np.lexsort([lots.to_numpy(), -counts.sum(axis=1).to_numpy()])
    full = np.column_stack([counts.to_numpy(), counts.sum(axis=1).to_numpy()])
    weight = np.ones(full.shape[1])
    weight[-1] = counts.shape[1]

    used = np.flatnonzero(shares > 0)
    room = shares[used, None] * full.sum(axis=0)
    have = np.zeros_like(room)
    fold = np.empty(len(full), dtype=np.int64)
    for g in order:
        some = np.flatnonzero(full[g])
        coming = full[g, some]
        fill = ((have[:, some] + coming / 2) / room[:, some]) @ (coming * weight[some])
        to = fill.argmin()
        have[to, some] += coming
        fold[g] = used[to]
    return np.asarray(FOLDS)[fold[np.searchsorted(counts.index.to_numpy(), joined)]]


def listed(names: str | Path) -> pd.DataFrame:
    """A published split as a table: file, fold.

    `names`: a CSV file with the columns file and fold ("train", "val" or "test"), or a folder with one CSV
    file per part, ``train.csv`` and perhaps ``val.csv`` and ``test.csv``, each with a column file (the form of
    the CORAL split). Other columns are not read. Raises ValueError for a file named twice or an unknown fold.
    """
    names = Path(names)
    if names.is_dir():
        parts = [fold for fold in FOLDS if (names / f"{fold}.csv").is_file()]
        if "train" not in parts:
            raise FileNotFoundError(f"{names.name}: expected train.csv, and perhaps val.csv and test.csv, in it")
        table = pd.concat([_column(names / f"{fold}.csv", ["file"]).assign(fold=fold) for fold in parts],
                          ignore_index=True)
    elif names.is_file():
        table = _column(names, ["file", "fold"])
    else:
        raise FileNotFoundError(f"{names}: nothing there; expected a CSV file with the columns file and "
                                "fold, or a folder with train.csv and test.csv")
    for row, (file, fold) in enumerate(zip(table["file"], table["fold"]), start=2):
        if not file or fold not in FOLDS:
            raise ValueError(f"{names.name}, row {row}: expected a file and one of {', '.join(FOLDS)}, "
                             f"got {file!r} and {fold!r}")
    if (twice := table["file"].duplicated()).any():
        raise ValueError(f"{names.name}: {table['file'][twice].iloc[0]!r} is listed twice; once is right")
    return table


def coverage(table: pd.DataFrame, names: str | Path) -> pd.DataFrame:
    """How far a published split can be followed: per fold the files listed, present and absent."""
    lists = listed(names)
    present = lists["file"].isin(_named(table, lists))
    counts = pd.DataFrame({"fold": lists["fold"], "listed": 1, "present": present.astype(int),
                           "absent": (~present).astype(int)}).groupby("fold").sum()
    return counts.reindex([fold for fold in FOLDS if fold in counts.index])


def leaks(folds: np.ndarray, groups: np.ndarray, person: pd.Series | None = None) -> pd.DataFrame:
    """Faces of validation and test that training has seen: rows val and test, columns faces, twin (one
    photograph is also in training), person (the same person is), either, share (of faces, by either)."""
    folds = np.asarray(folds)
    known = pd.Series(np.full(len(folds), None) if person is None else np.asarray(person, dtype=object))
    seen = {
        "twin": np.isin(groups, np.asarray(groups)[folds == "train"]),
        "person": (known.notna() & known.isin(known[folds == "train"].dropna())).to_numpy(),
    }
    rows = pd.DataFrame({"faces": 1, **seen, "either": seen["twin"] | seen["person"]}).groupby(folds).sum()
    rows = rows.reindex(list(FOLDS[1:]), fill_value=0).rename_axis("fold").astype(int)
    return rows.assign(share=rows["either"] / rows["faces"].replace(0, np.nan))


def digest(table: pd.DataFrame, folds: np.ndarray) -> str:
    """12 hex digits that stand for the split: SHA-256 of its sorted lines "file fold". Faces without a part
    don't count, so a published split has one digest whatever lies beside it."""
    lines = sorted(f"{file} {fold}" for file, fold in zip(table["file"], folds) if fold != UNUSED)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def summary(table: pd.DataFrame, folds: np.ndarray) -> pd.DataFrame:
    """Per part: faces, share (of the faces used), women (share of known genders), age (mean, years), then the
    number of faces per age band. Faces without a part, where there are any, are the row "not used"."""
    folds = np.asarray(folds)
    rows = pd.DataFrame({"faces": 1, "women": table["gender"].to_numpy(dtype=float, na_value=np.nan),
                         "age": table["age"].to_numpy(dtype=float, na_value=np.nan)}).groupby(folds)
    counts = rows.agg({"faces": "sum", "women": "mean", "age": "mean"})
    counts.insert(1, "share", counts["faces"] / (folds != UNUSED).sum())
    bands = pd.crosstab(folds, _bands(table))
    counts = counts.join(bands[_in_order(bands)])
    counts.loc[counts.index == UNUSED, "share"] = np.nan
    counts = counts.reindex([fold for fold in [*FOLDS, UNUSED] if fold in counts.index])
    return counts.rename(index={UNUSED: "not used"}).rename_axis("fold")


def balance(
    table: pd.DataFrame,
    targets: Mapping[str, float] | None = None,
    strength: float = 1.0,
    seed: int = 0,
    parity: bool = False,
) -> np.ndarray:
    """Rows of a training table, some of them several times, so that each age band has its target share.

    For the training part only: validation and test stay as they are, or their figures describe other faces.

    Parameters
    ----------
    table : training faces (file, age, gender).
    targets : share per label of `age_band`, of every band that occurs; they sum to 1. None: all bands alike.
    strength : 0 leaves the shares as they are, 1 reaches the targets, between them they are interpolated.
    parity : whether women and men are to be alike within each band.
    seed : which faces of a band come once more than the others.

    Returns
    -------
    int64 (m,), m >= n: sorted positions in `table`. Every face is there at least once, and those of a band
    (and gender) equally often, give or take one. The result is as short as keeping every face allows. Faces
    of unknown age come once and stand outside the shares; an unknown gender keeps its share of its band.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: expected 0 to 1, got {strength}")
    band = _bands(table)
    gender = _genders(table) if parity else np.full(len(table), "")
    cells = pd.DataFrame({"band": band, "gender": gender})[band != UNKNOWN]
    cells = cells.groupby(["band", "gender"]).size().rename("faces").reset_index()
    if not len(cells):
        return np.arange(len(table))
    per_band = cells.groupby("band")["faces"].transform("sum")
    wanted = _targets(targets, sorted(set(cells["band"])))
    within = cells["faces"] / per_band
    if parity:
        known = cells["gender"] != UNKNOWN
        within[known] = within[known].groupby(cells["band"]).transform("mean")
    now = cells["faces"] / cells["faces"].sum()
    share = (1 - strength) * now + strength * cells["band"].map(wanted) * within
    total = (cells["faces"] / share).max()
    times = np.maximum(np.rint(total * share), cells["faces"]).astype(int)

    lots = _lots(table["file"], seed)
    rows = [np.flatnonzero(band == UNKNOWN)]
    for cell, wanted_faces in zip(cells.itertuples(), times):
        members = np.flatnonzero((band == cell.band) & (gender == cell.gender))
        rows.append(np.resize(members[np.argsort(lots[members], kind="stable")], wanted_faces))
    return np.sort(np.concatenate(rows))


def balance_table(table: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """What `balance` did, per age band: faces before and after, their shares (of the faces of known age), the
    share of women before and after, and how often the face that comes most often does."""
    women = table["gender"].to_numpy(dtype=float, na_value=np.nan)
    faces = pd.DataFrame({"band": _bands(table), "women": women})
    before = faces.groupby("band")["women"].agg(["size", "mean"])
    after = faces.iloc[rows].groupby("band")["women"].agg(["size", "mean"])
    known = before.index != UNKNOWN
    often = pd.Series(np.bincount(rows, minlength=len(table))).groupby(faces["band"]).max()
    found = pd.DataFrame({
        "before": before["size"],
        "after": after["size"],
        "share_before": (before["size"] / before["size"][known].sum()).where(known),
        "share_after": (after["size"] / after["size"][known].sum()).where(known),
        "women_before": before["mean"],
        "women_after": after["mean"],
        "at_most": often,
    })
    return found.reindex(_in_order(found.index)).rename_axis("age_band")


def _targets(targets: Mapping[str, float] | None, bands: list[str]) -> dict[str, float]:
    if targets is None:
        return dict.fromkeys(bands, 1 / len(bands))
    labels = list(age_band([]).categories)
    if unknown := [band for band in targets if band not in labels]:
        raise ValueError(f"targets: {unknown[0]!r} is no age band; they are {', '.join(labels)}")
    if missing := [band for band in bands if not targets.get(band, 0) > 0]:
        raise ValueError(f"targets: {missing[0]!r} needs a share above 0: it has faces, and none is dropped")
    if absent := [band for band, share in targets.items() if share and band not in bands]:
        raise ValueError(f"targets: {absent[0]!r} can't reach {targets[absent[0]]}: it has no faces")
    if not np.isclose(sum(targets.values()), 1):
        raise ValueError(f"targets: the shares sum to {sum(targets.values()):g}; 1 would be right")
    return dict(targets)


def _published(
    table: pd.DataFrame, groups: np.ndarray, shares: np.ndarray, seed: int, names: Path
) -> np.ndarray:
    lists = listed(names)
    files = _named(table, lists)
    folds = files.map(lists.set_index("file")["fold"]).fillna(UNUSED).to_numpy(dtype="<U5")
    if not (folds != UNUSED).any():
        raise ValueError(f"{names.name}: none of the files listed is among the {len(table)} faces; the first "
                         f"listed is {lists['file'].iloc[0]!r}, the first face {table['file'].iloc[0]!r}")
    if absent := (~lists["file"].isin(files)).sum():
        warnings.warn(f"{names.name}: {absent} of the {len(lists)} files listed are not among the faces",
                      stacklevel=3)
    if "test" not in set(lists["fold"]):
        kin = np.isin(groups, groups[folds != UNUSED])
        folds[(folds == UNUSED) & ~kin] = "test"
    if "val" not in set(lists["fold"]) and shares[1] > 0:
        train = np.flatnonzero(folds == "train")
        part = np.array([shares[0], shares[1], 0.0]) / (shares[0] + shares[1])
        folds[train] = _grouped(table.iloc[train].reset_index(drop=True), groups[train], part, seed)
    return folds


def _named(table: pd.DataFrame, lists: pd.DataFrame) -> pd.Series:
    """The name of each face as lists have it: its path or, where no path is listed, the end of its path."""
    paths = table["file"].reset_index(drop=True)
    if paths.isin(lists["file"]).any():
        return paths
    ends = paths.str.rsplit("/", n=1).str[-1]
    if (twice := ends.duplicated(keep=False) & ends.isin(lists["file"])).any():
        raise ValueError(f"{paths[twice].iloc[0]!r} and {paths[twice].iloc[1]!r} end in one listed name; "
                         "list them with their paths")
    return ends


def _column(path: Path, columns: list[str]) -> pd.DataFrame:
    """Columns of a CSV file as str, nothing taken for missing (one face's name ends in a space)."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [column for column in columns if column not in table]:
        raise ValueError(f"{path.name}: expected a column {missing[0]!r}, found {list(table)}")
    return table[columns]


def _bands(table: pd.DataFrame) -> np.ndarray:
    """Age bands as an array of str, "unknown" where the age is."""
    return pd.Series(age_band(table["age"])).astype(object).fillna(UNKNOWN).to_numpy()


def _genders(table: pd.DataFrame) -> np.ndarray:
    """Genders as an array of str: "0", "1" or "unknown"."""
    return table["gender"].astype("Int8").astype(object).fillna(UNKNOWN).astype(str).to_numpy()


def _in_order(bands: Sequence[str]) -> list[str]:
    """The bands among these labels, youngest first, "unknown" last."""
    return [band for band in [*age_band([]).categories, UNKNOWN] if band in bands]


def _lots(files: pd.Series, seed: int) -> np.ndarray:
    """A number per file, uint64 (n,), as if drawn by lot, that depends on its name and the seed only."""
    return np.array([int.from_bytes(hashlib.blake2b(f"{seed} {file}".encode(), digest_size=8).digest())
                     for file in files], dtype=np.uint64)


def _checked(table: pd.DataFrame, groups: np.ndarray) -> np.ndarray:
    groups = np.asarray(groups)
    if groups.shape != (len(table),):
        raise ValueError(f"groups: expected one number per face, {len(table)}, got {groups.shape}")
    if (twice := table["file"].duplicated()).any():
        raise ValueError(f"table: {table['file'][twice].iloc[0]!r} is there twice; a file has one row")
    return groups

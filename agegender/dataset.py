"""Faces made ready for a model: read, decoded, grouped by duplicates, split. The same for every notebook."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Sequence

import numpy as np
import pandas as pd
from filelock import FileLock

from agegender import duplicates, faces, pixels, splits
from agegender.places import cache, written_whole
from agegender.tasks import Tasks


@dataclass(frozen=True)
class Dataset:
    """Faces, their pictures and their folds, row for row.

    ``table``: the columns of ``Faces.table``, then band (age band), group (cluster of near-duplicates
    and of pictures of one person), fold (train, val, test; "" where a published split leaves a face out) and
    seen (bool: a face of its group is in training).
    ``pixels``: uint8 (n, size, size, 3), memory-mapped. ``digest`` names pictures and labels, and
    ``split_digest`` who is in which fold, however the files are ordered.
    """

    faces: faces.Faces
    pictures: pixels.Pictures
    twins: duplicates.Duplicates
    table: pd.DataFrame
    digest: str
    split_digest: str

    @property
    def pixels(self) -> np.ndarray:
        return self.pictures.pixels

    def rows(self, fold: str) -> np.ndarray:
        """Positions (int64) of the faces of a fold."""
        return np.flatnonzero(self.table["fold"] == fold)

    @property
    def ages(self) -> np.ndarray:
        """Labelled ages of the training faces in years, float64, unknown ones left out: where heads start."""
        return self.table.loc[self.table["fold"] == "train", "age"].dropna().to_numpy(np.float64)

    def tasks(self, names: Sequence[str], age: str = "regression", groups: Sequence[int] = ()) -> Tasks:
        """What to ask a network: `names`, any of "age" and "gender"; `age`, in which form ("regression" or
        "distribution"); `groups`, lower edges of age groups to tell as well."""
        if unknown := [name for name in names if name not in ("age", "gender")]:
            raise ValueError(f"tasks: {unknown[0]!r} is none; age and gender are, and age_groups has its own edges")
        return Tasks(age if "age" in names else "", "gender" in names, tuple(groups), self.ages)

    def training_rows(self, balance: float = 0.0, seed: int = 0) -> np.ndarray:
        """Positions of the faces to train on; with `balance` above 0, rare ages several times (``splits.balance``)."""
        rows = self.rows("train")
        if balance <= 0:
            return rows
        return rows[splits.balance(self.table.iloc[rows], strength=balance, seed=seed)]

    def facts(self) -> dict:
        """What a run's record says of its data."""
        sizes = self.table["fold"].value_counts()
        return {
            "data": {"title": self.faces.title, "kind": self.faces.kind, "drawn": self.faces.drawn,
                     **self.faces.counts(), "limited_from": self.faces.limited_from, "digest": self.digest},
            "split": {"digest": self.split_digest, **{fold: int(sizes.get(fold, 0)) for fold in ("train", "val", "test")},
                      "unused": int(sizes.get(splits.UNUSED, 0)),
                      "test_seen": int((self.table["seen"] & (self.table["fold"] == "test")).sum())},
        }  # fmt: skip


def open_dataset(
    data: str = "sample",
    person: str = "",
    limit: int = 0,
    size: int = 64,
    split: str = "grouped",
    split_list: str = "",
    seed: int = 0,
) -> Dataset:
    """Read, decode, group and split the faces of `data`; what was done before comes from the cache.

    `data`, `person`, `limit`: see ``faces.read``. `size`: pixels per side. `split`: "grouped" (no twin and no
    person on both sides), "random" (plain, to show what leaks) or "published", by the lists in `split_list`;
    see ``splits.split``. `seed` decides the folds.
    """
    found = faces.read(data, person, limit)
    pictures = pixels.open_pictures(found, size)
    twins = find_twins(pictures)
    table = pictures.faces.table.copy()
    table["band"] = faces.age_band(table["age"])
    table["group"] = splits.together(twins.group, table["person"])
    table["fold"] = splits.split(table, table["group"].to_numpy(), kind=split, seed=seed, names=split_list)
    table["seen"] = table["group"].isin(table.loc[table["fold"] == "train", "group"])
    # an unknown label stays missing in pandas' str, and would make the whole line missing
    age, gender = (table[column].astype(str).fillna("?") for column in ("age", "gender"))
    labels = table["file"] + " " + pictures.info["digest"] + " " + age + " " + gender
    digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()[:16]
    return Dataset(
        pictures.faces, pictures, twins, table, digest, splits.digest(table, table["fold"].to_numpy())
    )


def find_twins(pictures: pixels.Pictures) -> duplicates.Duplicates:
    """``duplicates.find`` on `pictures`, kept in the cache until the pictures or that module change."""
    code = hashlib.sha256(open(duplicates.__file__, "rb").read()).hexdigest()[:8]
    folder = cache() / "duplicates" / f"{pictures.key}-{code}"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            twins = duplicates.find(pictures.thumbs, pictures.info["digest"].tolist())
            with written_whole(folder) as part:
                part.mkdir()
                np.save(part / "group.npy", twins.group)
                twins.pairs.to_parquet(part / "pairs.parquet")
    return duplicates.Duplicates(np.load(folder / "group.npy"), pd.read_parquet(folder / "pairs.parquet"))

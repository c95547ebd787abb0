"""The border: one table of predictions per model. Everything after it starts from such tables alone.

One row per face, sorted by file. Missing heads are nulls.

| column | type | meaning |
|---|---|---|
| file | string | the face's file name |
| fold | string | ``train``, ``val`` or ``test`` |
| group | int64 | cluster of near-duplicates and of pictures of one person |
| seen | boolean | a face of its group is in training; null in tables from before there was this column |
| age, gender, race | float64, Int8, Int8 | labels: years; 0 male, 1 female; UTKFace's codes, for the audit alone |
| age_pred, age_low, age_high | float64 | years; the interval where the model or its calibration gives one |
| p_female | float64 | probability of gender 1, in [0, 1] |
| age_group_pred | Int8 | position of the predicted age group; the groups are in the run's record |
"""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

import numpy as np
import pandas as pd

from agegender.places import written_whole

COLUMNS = {
    "file": "string", "fold": "string", "group": "int64", "seen": "boolean", "age": "float64", "gender": "Int8", "race": "Int8",
    "age_pred": "float64", "age_low": "float64", "age_high": "float64", "p_female": "float64", "age_group_pred": "Int8",
}  # fmt: skip


def table(faces: pd.DataFrame, said: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A predictions table for `faces`; the columns file, fold, group, seen (if there), age, gender, race are taken over.

    `said` is what ``training.predict`` gives, row for row: "age" (n,) in years, "gender" (n,) in [0, 1],
    "age_distribution" (n, ages), whose 5 % and 95 % points become age_low and age_high, "age_group" (n, groups), whose
    likeliest becomes age_group_pred. Answers to a question for which not one of the faces has a label become
    null: nothing taught the model, or can judge it.
    """
    known = {"age": faces["age"].notna().any(), "gender": faces["gender"].notna().any()}
    given: dict[str, np.ndarray] = {}
    if "age" in said and known["age"]:
        given["age_pred"] = said["age"]
    if "age_distribution" in said and known["age"]:
        for name, share in (("age_low", 0.05), ("age_high", 0.95)):
            given[name] = (np.cumsum(said["age_distribution"], axis=1) < share).sum(axis=1)
    if "gender" in said and known["gender"]:
        given["p_female"] = said["gender"]
    if "age_group" in said and known["age"]:
        given["age_group_pred"] = np.argmax(said["age_group"], axis=1)
    columns = {name: faces[name].to_numpy() for name in ("file", "fold", "group")}
    labels = [name for name in ("seen", "age", "gender", "race") if name in faces]
    frame = pd.DataFrame(columns).join(faces[labels].reset_index(drop=True))
    for name, values in given.items():
        frame[name] = np.asarray(values, dtype=np.float64)
    frame = frame.reindex(columns=list(COLUMNS)).astype(COLUMNS)
    return checked(frame.sort_values("file", ignore_index=True), "predictions")


def checked(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """`frame` if it is a table of predictions; else a ValueError that names the column, row and value."""
    if missing := [c for c in COLUMNS if c not in frame.columns and c != "seen"]:
        raise ValueError(f"{name}: no column {missing[0]!r}; a predictions table has {', '.join(COLUMNS)}")
    if len(frame) == 0:
        raise ValueError(f"{name}: no rows")
    if (twice := frame["file"].duplicated()).any():
        raise ValueError(
            f"{name}: file {frame.loc[twice, 'file'].iloc[0]!r} stands twice; each face has one row"
        )
    for column, low, high in (("age_pred", -np.inf, np.inf), ("p_female", 0.0, 1.0)):
        values = frame[column]
        if values.isna().all():
            continue  # a model without this head
        wrong = ~(np.isfinite(values) & values.between(low, high))
        if wrong.any():
            row = frame[wrong].iloc[0]
            what = "a finite number of years" if column == "age_pred" else "a probability in [0, 1]"
            raise ValueError(f"{name}: {column} of {row['file']!r} is {row[column]}, not {what}")
    return frame


def write(frame: pd.DataFrame, path: Path | str) -> None:
    """Write a predictions table as Parquet, checked and whole or not at all."""
    checked(frame, str(path))
    with written_whole(path) as part:
        frame.to_parquet(part, index=False, compression="zstd")


def read(path: Path | str) -> pd.DataFrame:
    """Read a predictions table (a Parquet file, or the run's folder that holds it), checked."""
    path = Path(path)
    path = path / "predictions.parquet" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no predictions at {path}: run the model's notebook first")
    frame = pd.read_parquet(path)
    if "seen" not in frame:
        frame["seen"] = pd.NA
    return checked(frame.astype(COLUMNS), str(path))

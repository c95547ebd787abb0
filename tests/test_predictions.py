"""The border: what a table of predictions must be, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from agegender import predictions


@pytest.fixture
def faces():
    return pd.DataFrame({
        "file": ["b.jpg", "a.jpg", "c.jpg"], "fold": ["val", "test", "test"], "group": [4, 2, 2],
        "age": [30.0, 5.0, np.nan], "gender": pd.array([1, 0, None], dtype="Int8"), "race": pd.array([0, None, 3], dtype="Int8"),
    }, index=[10, 20, 30])  # fmt: skip


def test_a_table_goes_to_disk_and_back(faces, tmp_path):
    table = predictions.table(faces, {"age": np.array([31.5, 4.0, 60.0]), "gender": np.array([0.9, 0.2, 0.5])})
    assert table["file"].tolist() == ["a.jpg", "b.jpg", "c.jpg"] and table["age_pred"].tolist() == [
        4.0,
        31.5,
        60.0,
    ]
    predictions.write(table, tmp_path / "predictions.parquet")
    again = predictions.read(tmp_path)
    pd.testing.assert_frame_equal(again, table)
    assert again.dtypes.astype(str).to_dict() == predictions.COLUMNS


def test_a_missing_head_is_null(faces):
    table = predictions.table(faces, {"gender": np.array([0.9, 0.2, 0.5])})
    assert table["age_pred"].isna().all() and table["age_low"].isna().all() and len(table.columns) == 12


def test_who_has_a_copy_in_training_is_kept_and_older_tables_leave_it_open(faces, tmp_path):
    said = {"gender": np.array([0.9, 0.2, 0.5])}
    table = predictions.table(faces.assign(seen=[False, True, False]), said)
    assert table["seen"].tolist() == [True, False, False]
    predictions.write(table, tmp_path / "new.parquet")
    assert predictions.read(tmp_path / "new.parquet")["seen"].tolist() == [True, False, False]
    table.drop(columns="seen").to_parquet(tmp_path / "old.parquet")
    assert predictions.read(tmp_path / "old.parquet")["seen"].isna().all()


def test_a_distribution_gives_an_interval_and_groups_their_likeliest(faces):
    ages = np.zeros((3, 117))
    ages[:, 20:40] = 0.05  # 20 to 39 years, each alike
    groups = np.array([[0.1, 0.7, 0.2], [0.6, 0.2, 0.2], [0.0, 0.1, 0.9]])
    said = {"age": ages @ np.arange(117), "age_distribution": ages, "age_group": groups}
    table = predictions.table(faces, said)
    assert (table["age_low"] == 20).all() and (table["age_high"] == 38).all()
    assert table["age_group_pred"].tolist() == [0, 1, 2] and table["p_female"].isna().all()


@pytest.mark.parametrize("change, message", [
    (lambda t: t.assign(p_female=[0.1, 1.2, 0.3]), "p_female of 'b.jpg' is 1.2.*probability in"),
    (lambda t: t.assign(age_pred=[1.0, np.nan, 2.0]), "age_pred of 'b.jpg' is nan.*finite"),
    (lambda t: t.assign(age_pred=[1.0, np.inf, 2.0]), "age_pred of 'b.jpg' is inf"),
    (lambda t: t.assign(file=["a.jpg", "a.jpg", "c.jpg"]), "'a.jpg' stands twice"),
    (lambda t: t.drop(columns="group"), "no column 'group'"),
    (lambda t: t.iloc[:0], "no rows"),
])  # fmt: skip
def test_what_is_no_table_of_predictions_is_refused(faces, tmp_path, change, message):
    table = change(predictions.table(faces, {"age": np.array([1.0, 2.0, 3.0]), "gender": np.array([0.1, 0.2, 0.3])}))
    with pytest.raises(ValueError, match=message):
        predictions.write(table, tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()


def test_no_predictions_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the model's notebook first"):
        predictions.read(tmp_path)

"""Faces made ready for a model, where some labels are missing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from agegender.dataset import open_dataset


def test_faces_with_a_copy_in_training_are_marked(tmp_path, own_cache):
    rng = np.random.default_rng(0)
    for k in range(30):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / f"{k:02d}.png")
    (tmp_path / "29.png").write_bytes((tmp_path / "00.png").read_bytes())
    (tmp_path / "labels.csv").write_text("\n".join(["path,age", *(f"{k:02d}.png,{k + 1}" for k in range(30))]))
    folds = ["train"] * 20 + ["val"] * 5 + ["test"] * 5
    lists = tmp_path / "lists.csv"
    lists.write_text("\n".join(["file,fold", *(f"{k:02d}.png,{fold}" for k, fold in enumerate(folds))]))
    dataset = open_dataset(str(tmp_path / "labels.csv"), size=16, split="published", split_list=str(lists))
    seen = dataset.table.set_index("file")["seen"]
    assert seen["29.png"] and not seen[[f"{k:02d}.png" for k in range(20, 29)]].any()
    assert dataset.facts()["split"]["test_seen"] == 1
    assert open_dataset(str(tmp_path / "labels.csv"), size=16).facts()["split"]["test_seen"] == 0


@pytest.mark.parametrize("column", ["age", "gender"])
def test_missing_labels_have_a_digest_that_follows_what_is_known(column, tmp_path, own_cache):
    def opened(*values: str):
        folder = tmp_path / f"{column}-{'-'.join(values)}"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for k in range(30):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{k:02d}.png")
        other = {"age": "gender,f", "gender": "age,30"}[column].split(",")
        rows = [f"{k:02d}.png,{values[k % len(values)]},{other[1]}" for k in range(30)]
        (folder / "labels.csv").write_text("\n".join([f"path,{column},{other[0]}", *rows]))
        return open_dataset(str(folder), size=16)

    some, none, others = opened("1", ""), opened(""), opened("0", "")
    assert some.table[column].isna().sum() == 15 and none.table[column].isna().all()
    assert len({some.digest, none.digest, others.digest}) == 3

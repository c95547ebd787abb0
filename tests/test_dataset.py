"""Faces made ready for a model, where some labels are missing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from agegender.dataset import open_dataset


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

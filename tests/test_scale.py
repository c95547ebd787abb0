"""What many faces cost: the varied faces, the stages measured, and what is concluded from given numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from agegender import duplicates, faces, pixels, sample, scale
from agegender.__main__ import main

COUNTS = np.repeat([5_000, 20_000, 50_000, 200_000], 2)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    sample.draw(folder, people=25, size=48, workers=1, progress=False)
    return folder


@pytest.fixture
def drawn(few, monkeypatch, own_cache):
    """A small sample in the place of the whole one."""
    monkeypatch.setattr(sample, "folder", lambda: few)


def rows(seconds, peak, stage="table", kind=scale.DRAWN) -> pd.DataFrame:
    return pd.DataFrame({"faces": COUNTS, "stage": stage, "seconds": seconds, "core_seconds": seconds,
                         "peak_mb": peak, "kind": kind})  # fmt: skip


def noisy(values, share=0.02):
    return values * np.random.default_rng(3).normal(1, share, len(values))


def test_varied_faces_are_read_and_are_no_copies_of_one_another(drawn, tmp_path):
    scale.vary(tmp_path / "many", 300)
    found = faces.read(tmp_path / "many")
    assert found.counts() == {"found": 300, "read": 300, "set_aside": 0}
    pictures = pixels.open_pictures(found, 32, progress=False)
    assert len(pictures.info) == 300 and pictures.info["digest"].is_unique
    twins = duplicates.find(pictures.thumbs, pictures.info["digest"].tolist())
    assert len(twins.pairs) < 30
    scale.vary(tmp_path / "again", 3)
    assert all((tmp_path / "many" / path.name).read_bytes() == path.read_bytes() for path in (tmp_path / "again").iterdir())


def test_every_stage_is_measured(drawn, tmp_path):
    scale.vary(tmp_path / "many", 200)
    found = pd.DataFrame(scale.measure(str(tmp_path / "many"), 0, 16))
    assert found["stage"].tolist() == list(scale.STAGES) and (found["faces"] == 200).all()
    assert (found["peak_mb"] > 10).all() and (found[["seconds", "core_seconds"]] >= 0).all(axis=None)
    assert 0 <= scale.met(str(tmp_path / "many"), 0, 16) < 0.05


def test_proportion_and_square_are_told_apart_and_the_million_lies_in_the_interval():
    straight = scale.growth(rows(noisy(3 + COUNTS * 2e-3), 400 + COUNTS * 1e-3))
    assert not straight.square and straight.low < 2003 < straight.high and straight.high < 2200
    assert straight.slope == pytest.approx(1e-3)
    bent = rows(noisy(3 + COUNTS * 2e-3 + COUNTS**2 * 1e-8), 400.0 + 0 * COUNTS)
    found = scale.growth(bent)
    assert found.square and found.low < 12_003 < found.high and found.high < 20_000 and found.slope == 0
    falling = scale.growth(rows(1 / COUNTS, 400.0 + 0 * COUNTS))
    assert not falling.square and falling.million > 0
    small = bent[bent["faces"] < 100_000]  # where the square hardly shows it is there if it has to be
    assert scale.growth(small, square=True).high > 12_003
    three = small.drop_duplicates("faces")
    assert np.isinf(scale.growth(three, square=True).high)
    with pytest.raises(ValueError, match="1 numbers of faces; three at least"):
        scale.growth(rows(COUNTS * 1e-3, COUNTS).query("faces == 5000"))


def test_the_page_follows_the_numbers():
    record = {scale.DRAWN: {"platform": "Linux, 2 cores", "size": 64, "started": "2026-01-02T03:04", "pairs_met": {"5000": 2e-5}}}
    table = pd.concat([
        rows(noisy(1 + COUNTS * 1e-3 + (COUNTS**2 * 1e-8 if stage == "pixels" else 0)), 400 + COUNTS * 1e-3, stage)
        for stage in scale.STAGES
    ])
    said = scale.page(table, record)
    assert "measured at 5,000, 20,000, 50,000, 200,000 faces and 64 pixels, Linux, 2 cores, 2026-01-02" in said
    assert "with the square of the number of faces in: pixels, decoded, near-duplicates;" in said
    assert "2.0e-05 of all pairs" in said
    assert said.count("\n| ") == 2 + len(scale.STAGES) and "+100 [+100, +100]" in said
    few = scale.page(table[table["faces"] == 5_000], record)
    assert "million" not in few and "The fit" not in few


def test_nothing_stored_is_said_and_too_few_faces_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    assert scale.stored().startswith("Nothing is stored")
    assert main(["bench", "--scale", "5"]) == 1
    assert "at least 100 faces" in capsys.readouterr().err

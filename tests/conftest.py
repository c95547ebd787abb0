"""What the tests share: real faces and weights where they are at hand, and a cache of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SHARED = Path(__file__).resolve().parents[2] / "shared"
LONG = (
    "test_end_to_end", "test_end_to_end_data", "test_slurm", "test_training", "test_browser", "test_report",
    "test_bench", "test_explain", "test_tuning",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The files that take long first: none is left at the end, for one worker alone."""
    items.sort(key=lambda item: (*LONG, item.path.stem).index(item.path.stem))


@pytest.fixture(autouse=True)
def no_figure_is_left():
    """A test that looks at figures instead of showing them leaves them open."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def utkface_5000() -> Path:
    """The folder of the 5,000 faces of the coursework; skips where it is not beside the checkout."""
    return _there(SHARED / "data" / "utkface_5000")


@pytest.fixture(scope="session")
def utkface() -> Path:
    """The folder of UTKFace; skips where it is not beside the checkout."""
    return _there(SHARED / "data" / "utkface")


@pytest.fixture(scope="session")
def imagenet_file() -> Path:
    """ImageNet weights of MobileNetV2 at alpha 0.35; skips where they are not beside the checkout."""
    return _there(SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5")


@pytest.fixture(scope="session")
def lite0_file() -> Path:
    """EfficientNet-Lite0, ImageNet, as a whole Keras model; skips where it is not beside the checkout."""
    return _there(SHARED / "weights" / "efficientnet_lite0_224_notop.keras")


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for one test."""
    monkeypatch.setenv("AGEGENDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _there(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"not at hand: {'/'.join(path.parts[-3:])} beside the checkout")
    return path

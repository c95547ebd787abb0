"""The bench: FLOPs against known figures, its tables from given numbers, and a tiny real run."""

from __future__ import annotations

import importlib.util
import json
import math

import keras
import pandas as pd
import pytest
from keras import layers

from agegender import bench, profiles, sample
from agegender.__main__ import main


@pytest.mark.parametrize(
    "name, macs",  # multiply-adds at 224 pixels as published, without VGG16's dense layers
    [("VGG16", 15.47e9 - 0.1236e9), ("MobileNetV2", 0.300e9), ("ResNet50", 3.86e9)],
)
def test_flops_are_the_published_ones(name, macs):
    network = getattr(keras.applications, name)(
        weights=None, include_top=name != "VGG16", input_shape=(224, 224, 3)
    )
    assert bench.flops(network) / 2 == pytest.approx(macs, rel=0.02)
    outer = keras.Sequential([keras.Input((224, 224, 3)), network])
    assert bench.flops(outer) == bench.flops(network)


def test_flops_of_each_kind_of_layer():
    def alone(layer, shape=(8, 8, 6)):
        return bench.flops(keras.Sequential([keras.Input(shape), layer]))

    assert alone(layers.Conv2D(4, 3, strides=2, padding="same")) == 2 * 16 * 9 * 6 * 4
    assert alone(layers.Conv2D(4, 3, groups=2, padding="same")) == 2 * 64 * 9 * 3 * 4
    assert alone(layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")) == 2 * 64 * 9 * 6 * 2
    assert alone(layers.SeparableConv2D(5, 3, padding="same")) == 2 * 64 * (9 * 6 + 6 * 5)
    assert alone(layers.Dense(7), (10,)) == 2 * 70
    assert alone(layers.BatchNormalization()) == 0


def canned(model="model_a", device="CPU", slow=1.0, **more) -> dict:
    """A result as `bench.measure` returns it."""
    speed = {"ceiling": 100.0, "fit": 95.0 / slow, "plain fit": 98.0, "inference": 300.0, "old way": 10.0}
    return {
        "model": model, "backend": "tensorflow", "precision": "float32", "device": device, "batch": 32,
        "arguments": {"size": 64, "width": 32}, "recipe": "S1, model A", "flops": 4 * 10**8,
        "parameters": 1000,
        "images_per_second": {kind: [value, 0.9 * value, 1.1 * value] for kind, value in speed.items()},
        "core_seconds_per_image": {kind: [2 / value] for kind, value in speed.items()},
        "matmul_flops_per_second": {"float32": [2e11]}, "compile_seconds": 3.21, "peak_memory_mb": 987.6,
        "flops_of": [
            {"arguments": {"size": 64, "width": 32}, "flops": 4 * 10**8},
            {"arguments": {"size": 128, "width": 64}, "flops": 64 * 10**8},
        ],
        **more,
    }  # fmt: skip


def runs() -> list[dict]:
    return [
        {"profile": "p", "run": "a", "model": "model_a", "epochs": 6, "arguments": {"size": 64, "width": 32}},
        {
            "profile": "p",
            "run": "b",
            "model": "model_a",
            "epochs": 6,
            "arguments": {"size": 128, "width": 64},
        },
        {"profile": "p", "run": "c", "model": "model_b:VGG16", "epochs": 6, "arguments": {"size": 64}},
    ]


def test_expected_time_is_epochs_by_faces_by_speed_scaled_by_flops():
    table = bench.expected(runs(), [canned()], (1000,))
    assert table["run"].tolist() == ["a", "b", "c"]
    seconds = 6 * 800 / 95
    assert table["1,000 faces"].iloc[0] == pytest.approx(seconds / 60)
    assert table["1,000 faces"].iloc[1] == pytest.approx(16 * seconds / 60)
    assert math.isnan(table["1,000 faces"].iloc[2])  # never guessed from another network


def test_ratios_have_an_aim_that_is_met_or_missed():
    table = bench.ratios([canned(), canned("branched:s2", "GPU", slow=2.0)]).set_index(["model", "ratio"])
    assert table.loc[("model_a", "fit / ceiling"), ["median", "aim", ""]].tolist() == [0.95, "0.9", "met"]
    assert table.loc[("model_a", "fit / ceiling"), "by work"] == "0.95"
    assert table.loc[("model_a", "fit / old way"), ["median", "aim", ""]].tolist() == [9.5, "", ""]
    on_gpu = table.loc["branched:s2", ["median", "aim", ""]]
    assert on_gpu.loc["fit / ceiling"].tolist() == [0.47, "0.8", "missed"]
    assert on_gpu.loc["fit / old way"].tolist() == [4.75, "10", "missed"]


def test_an_aim_on_which_rounds_disagree_is_neither_met_nor_missed():
    rounds = ([0.95, 0.5, 0.94, 0.92, 0.96], [1.76, 0.3, 4.7, 0.2, 1.9], [0.95, 0.5, 0.6, 0.7, 0.8])
    assert [bench._verdict(each, 0.9) for each in rounds] == ["met", "unclear", "missed"]


def test_the_report_says_all_that_was_measured_and_what_was_not():
    record = {
        "machine": {"platform": "Linux, 2 cores", "load_before": "0.1", "load_after": "1.9"},
        "pixels": {
            "size": 64,
            "workers": 2,
            "images_per_second": {"pixels": [900.0], "plain Pillow": [300.0]},
        },
        "results": [canned()],
        "expected": json.loads(bench.expected(runs(), [canned()], (1000,)).to_json(orient="records")),
        "missing": ["backend jax: not installed"],
    }
    text = bench.report(record)
    for said in (
        "3.0 times",
        "57%",
        "988",
        "3.2",
        "met",
        "x 16",
        "not measured",
        "jax: not installed",
        "0.9",
        "load",
    ):
        assert said in text
    assert "nan" not in text.lower().split()


def test_profiles_become_networks():
    found = pd.DataFrame(bench.networks_of(profiles.read("coursework"))).set_index("run")
    assert found.loc["03_model_a", "model"] == "model_a"
    assert found.loc["04_model_b", "model"] == "model_b:MobileNetV2"
    assert found.loc["05_branched", "model"] == "branched:s2"
    assert found.loc["03_model_a", "arguments"].items() >= {"size": 128, "width": 64}.items()
    assert (found["epochs"] > 0).all()


def test_an_unknown_model_is_named(capsys):
    assert main(["bench", "--models", "model_x"]) == 1
    assert "model_x" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_tiny_run_measures_and_writes_its_numbers(backend, tmp_path, own_cache, capsys, monkeypatch):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    monkeypatch.setattr(bench, "networks_of", lambda profile: runs()[:1])  # others take time to build
    sample.draw(tmp_path / "faces", people=12, size=64, workers=1, progress=False)
    out = tmp_path / "bench.json"
    words = f"--models model_a --backends {backend} --size 32 --width 4 --batch 8 --seconds 0.2"
    assert main(["bench", *words.split(), "--data", str(tmp_path / "faces"), "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    result = record["results"][0]
    assert result["arguments"] == {"size": 32, "width": 4} and result["flops"] > 0
    kinds = {"ceiling", "fit", "plain fit", "inference", "old way", "old way, data alone"}
    assert set(result["images_per_second"]) == kinds
    for speeds in [*result["images_per_second"].values(), *record["pixels"]["images_per_second"].values()]:
        assert len(speeds) == bench.ROUNDS and all(math.isfinite(speed) and speed > 0 for speed in speeds)
    assert result["versions"]["keras"] and record["machine"]["platform"] and record["expected"]
    assert "fit / ceiling" in capsys.readouterr().out

"""How much of a head a network should see: where UTKFace has the eyes, and what another crop costs.

``python -m agegender crops DATA`` measures both on UTKFace: the places of eyes, nose and mouth on training faces, to which
`agegender.photos` brings every face; and on test faces, each put into a larger picture, whether it is found there and how
the released model's answers change with the crop. Tables of answers are kept, no pictures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from agegender import dataset, metrics, photos, places, predictions, provenance, trained
from agegender.places import written_whole

FOLDER = Path("book/reference/photographs")
FRAME = (800, 600)  # pixels of the larger pictures
ALIGNED = "as UTKFace has it"
UPRIGHT = "found, set upright"
WIDER = (0.7, 0.85, 1.0, 1.15, 1.3, 1.5)
MARGINS = (0.0, 0.1, 0.3)
TILT = 15.0  # degrees to either side, for the pictures called tilted
FEWEST = 50  # faces whose landmarks are enough for a median


def landmarks(data: dataset.Dataset, finder: photos.Finder, count: int, seed: int = 0) -> dict:
    """Where POINTS lie in training faces, as shares of the side: medians, and how far half of the faces lie from them at most.

    The nearest face to the middle counts. ValueError where fewer than FEWEST of them were found.
    """
    rows = np.random.default_rng(seed).permutation(data.rows("train"))[:count]
    found = []
    for row in tqdm(rows, desc="landmarks", mininterval=5):
        image = photos.read(data.faces.root / data.table["file"].iloc[row])
        some = finder(image)
        middle = np.array(image.size) / 2
        if some:
            nearest = min(some, key=lambda face: np.hypot(*(face.points.mean(0) - middle)))
            found.append(nearest.points / image.size)
    if len(found) < FEWEST:
        raise ValueError(f"a face was found in {len(found)} of {len(rows)} training faces; {FEWEST} are needed for the places of eyes and mouth")
    every = np.stack(found)
    middle = np.median(every, axis=0)
    apart = np.median(np.hypot(*np.moveaxis(every - middle, -1, 0)), axis=0)
    return {
        "points": {name: [round(float(v), 4) for v in xy] for name, xy in zip(photos.POINTS, middle)},
        "apart": {name: round(float(v), 4) for name, v in zip(photos.POINTS, apart)},
        "asked": len(rows), "found": len(found), "data": data.faces.title, "digest": data.digest, "split": data.split_digest,
    }  # fmt: skip


def framed(image: Image.Image, rng: np.random.Generator, tilt: float = 0.0) -> Image.Image:
    """A face's picture in a larger one, FRAME pixels: at a random place, 0.7 to 2 times its size, turned by up to `tilt`
    degrees to either side, on grey."""
    side = round(photos.SIDE * rng.uniform(0.7, 2.0))
    frame = Image.new("RGB", FRAME, (127, 127, 127))
    face = image.resize((side, side), Image.Resampling.BICUBIC).convert("RGBA")
    if tilt:
        face = face.rotate(rng.uniform(-tilt, tilt), Image.Resampling.BICUBIC, expand=True)
    place = [int(rng.integers(0, whole - part + 1)) for whole, part in zip(FRAME, face.size)]
    frame.paste(face, place, face)
    return frame


def views(model: trained.Trained, data: dataset.Dataset, finder: photos.Finder, count: int, seed: int = 0) -> pd.DataFrame:
    """The model's answers about `count` test faces by lot, in every crop: a predictions table after the columns picture
    ("plain" or "tilted"), crop (ALIGNED, UPRIGHT or "box") and amount (times as wide, or margin).

    Faces that were not found have no answer in the crops that need it.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(data.rows("test"))[:count])
    table = data.table.iloc[rows].reset_index(drop=True)
    crops: dict[tuple, dict[int, np.ndarray]] = {}
    for at, file in enumerate(tqdm(table["file"], desc="crops", mininterval=5)):
        image = photos.read(data.faces.root / file)
        crops.setdefault(("plain", ALIGNED, 1.0), {})[at] = photos.aligned(data.faces.root / file, model.size)[0]
        for picture, tilt in (("plain", 0.0), ("tilted", TILT)):
            frame = framed(image, np.random.default_rng([seed, at]), tilt)
            some = finder(frame)
            asked = [(UPRIGHT, w) for w in (WIDER if not tilt else (1.0,))] + [("box", m) for m in (MARGINS if not tilt else (0.1,))]
            for crop, amount in asked:
                kept = crops.setdefault((picture, crop, amount), {})
                if some:
                    how = photos.cut if crop == UPRIGHT else photos.cut_box
                    kept[at] = how(frame, some[0], model.size, amount)
    parts = []
    for (picture, crop, amount), kept in crops.items():
        said = model.answers(np.stack(list(kept.values()))).set_index(pd.Index(list(kept)))
        part = table.reindex(columns=[c for c in predictions.COLUMNS if c in table]).copy()
        for name, column in (("age_pred", "age"), ("age_low", "age_low"), ("age_high", "age_high"), ("p_female", "p_female")):
            part[name] = said[column].reindex(part.index)
        part = part.reindex(columns=list(predictions.COLUMNS)).astype(predictions.COLUMNS)
        parts.append(part.assign(picture=picture, crop=crop, amount=amount))
    return pd.concat(parts, ignore_index=True)


def measure(source: str, count: int, seed: int = 0) -> int:
    """Measure and keep both; prints what was found. 1 where it cannot be done."""
    try:
        model, finder = trained.load(), photos.Finder()
        how = model.record["parameters"]
        data = dataset.open_dataset(source, how["person"], how["limit"], how["size"], how["split"], how["split_list"], how["split_seed"])
        if data.split_digest != model.record["facts"]["split"]["digest"]:
            raise ValueError(
                f"{source} is split as {data.split_digest}, the released model's faces as {model.record['facts']['split']['digest']}: "
                "the UTKFace that it was trained on would be right"
            )
        where = landmarks(data, finder, count, seed)
        with written_whole(photos.LANDMARKS) as part:
            part.write_text(json.dumps(where, indent=1) + "\n", encoding="utf-8")
        table = views(model, data, finder, count, seed)
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    folder = places.home() / FOLDER
    with written_whole(folder / "answers.parquet") as part:
        table.to_parquet(part, index=False, compression="zstd")
    record = {
        "model": model.title, "released": model.record["files"], "data": data.facts(), "faces": count, "seed": seed, "frame": FRAME,
        "code": provenance.git(), "versions": provenance.versions(), "devices": provenance.devices(),
    }  # fmt: skip
    with written_whole(folder / "record.json") as part:
        part.write_text(json.dumps(provenance.plain(record), indent=2) + "\n", encoding="utf-8")
    print(figures(table).to_string(index=False))
    print(words(table))
    return 0


def stored() -> pd.DataFrame:
    """The kept answers; FileNotFoundError where there are none."""
    return pd.read_parquet(places.home() / FOLDER / "answers.parquet")


def figures(table: pd.DataFrame) -> pd.DataFrame:
    """Per crop, on the faces that were found in both kinds of picture, so that all are judged by the same: picture, crop,
    amount, measure ("age MAE", "age bias", "gender accuracy"), value, low, high (95 %), n."""
    table = _found(table)
    rows = []
    for (picture, crop, amount), part in table.groupby(["picture", "crop", "amount"], sort=False):
        found = metrics.estimates(part.drop(columns=["picture", "crop", "amount"]))
        rows += [
            {"picture": picture, "crop": crop, "amount": amount, "measure": name, **vars(found[name])}
            for name in ("age MAE", "age bias", "gender accuracy")
        ]
    return pd.DataFrame(rows)


def _found(table: pd.DataFrame) -> pd.DataFrame:
    missed = set(table.loc[table["age_pred"].isna(), "file"])
    return table[~table["file"].isin(missed)]


def difference(table: pd.DataFrame, crop: tuple[str, str, float], other: tuple[str, str, float]) -> pd.DataFrame:
    """``metrics.paired`` of two crops (picture, crop, amount), `other` minus `crop`, on the faces found in all."""
    table = _found(table)
    keys = pd.MultiIndex.from_frame(table[["picture", "crop", "amount"]])
    parts = {str(key): table[keys == key] for key in (crop, other)}
    return metrics.paired(parts)


def words(table: pd.DataFrame) -> str:
    """What the kept answers say: how many faces were found, and what finding and cutting them costs."""
    plain, tilted = (
        table[(table["picture"] == picture) & (table["crop"] == UPRIGHT) & (table["amount"] == 1.0)] for picture in ("plain", "tilted")
    )
    hits = metrics.proportion(plain["age_pred"].notna())
    turned = metrics.proportion(tilted["age_pred"].notna())
    same = difference(table, ("plain", ALIGNED, 1.0), ("plain", UPRIGHT, 1.0)).set_index("measure")
    boxes = difference(table, ("tilted", UPRIGHT, 1.0), ("tilted", "box", 0.1)).set_index("measure")
    shown = figures(table)

    def said(picture: str, crop: str, amount: float) -> str:
        part = shown[(shown["picture"] == picture) & (shown["crop"] == crop) & (shown["amount"] == amount)].set_index("measure")
        age, gender = (metrics.Estimate(*part.loc[name, ["value", "low", "high", "n"]]) for name in ("age MAE", "gender accuracy"))
        return f"{age.years()}, gender {gender.percent()}"

    def more(row, scale: float, unit: str) -> str:
        return f"{scale * row['value']:+.1f} {unit} [{scale * row['low']:+.1f}, {scale * row['high']:+.1f}]"

    return (
        f"Of {hits.n:,} of UTKFace's test faces, put into larger pictures, {hits.percent()} were found, and of the same tilted by up to "
        f"{TILT:g} degrees {turned.percent()}. The released model is off by {said('plain', ALIGNED, 1.0)} on these pictures as they are; found, "
        f"set upright and cut out by {said('plain', UPRIGHT, 1.0)}: the detour costs {more(same.loc['age MAE'], 1, 'years')} and "
        f"{more(same.loc['gender accuracy'], 100, 'points')}. Where heads are tilted, cutting out the box that was found, with a tenth of "
        f"margin and not set upright, instead of setting the face upright costs {more(boxes.loc['age MAE'], 1, 'years')} and "
        f"{more(boxes.loc['gender accuracy'], 100, 'points')}."
    )


def title(found: pd.DataFrame) -> str:
    """A title for the figure of `figures`: where the age error is lowest, and what the widest crop costs."""
    part = found[(found["picture"] == "plain") & (found["crop"] == UPRIGHT) & (found["measure"] == "age MAE")].set_index("amount")["value"]
    widest = part.index.max()
    best = "UTKFace's own width" if part.idxmin() == 1 else f"{part.idxmin():g} times UTKFace's width"
    return f"Ages are told best at {best}, {part.min():.1f} years off; at {widest:g} times the width, {part[widest]:.1f} years off"

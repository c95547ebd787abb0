"""The drawn sample: pictures of people who do not exist, the data used where no other is given.

`agegender.portraits` draws them; here stands who is drawn, how often, and under which labels. The
labels carry planted errors and some pictures have planted twins; ``truth.csv`` says which. Nothing
measured on these drawings says anything about people.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from joblib import Parallel, cpu_count, delayed
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from agegender.places import cache, written_whole
from agegender.portraits import BACKDROPS, CLOTHES, EYES, FRAME, HAIR, Person, Shot, jpeg, photograph

VERSION = 1      # part of the cached folder's name: raise it whenever the drawings change
TWIN_KINDS = ("identical", "reencoded", "resized", "cropped", "brightened", "mirrored")
TWIN_SHARE = 0.05

# Share of people per band of ages, after UTKFace: many small children, a peak at 26 to 30, a long tail.
AGE_SHARES = (((1, 2), .085), ((3, 5), .045), ((6, 12), .065), ((13, 17), .05), ((18, 25), .185),
              ((26, 30), .19), ((31, 40), .135), ((41, 50), .08), ((51, 65), .10), ((66, 80), .045),
              ((81, 100), .02))
RACE_SHARES = (.42, .19, .145, .17, .075)             # positions as in faces.RACES
TONES = ((.14, .09), (.80, .12), (.27, .10), (.52, .13), (.40, .17))   # mean and sd of skin tone per race

HAIR_SHARES = {"fair": (.08, .22, .28, .18, .17, .07), "deep": (.66, .28, .06, 0, 0, 0)}


def _person(number: int, rng: np.random.Generator) -> tuple[Person, int]:
    """A person and the age of their first picture."""
    bands, shares = zip(*AGE_SHARES)
    low, high = bands[rng.choice(len(bands), p=np.array(shares) / sum(shares))]
    first = int(rng.integers(low, high + 1))
    gender, race = int(rng.random() > .523), int(rng.choice(5, p=RACE_SHARES))
    tone = float(np.clip(rng.normal(*TONES[race]), 0, 1))
    fair = tone < .42 and race in (0, 4)
    curly = float(np.clip(rng.normal(.75 if race == 1 else .25, .22), 0, 1))
    woman = gender == 1
    return Person(
        person=f"p{number:04d}", gender=gender, race=race, tone=tone, warmth=float(rng.normal()),
        pace=float(np.clip(rng.normal(1, .065), .85, 1.15)),
        femininity=float(rng.normal(.9 if woman else -.9, .85)),
        breadth=float(rng.normal()), length=float(rng.normal()), eye_size=float(rng.normal()),
            eye_gap=float(rng.normal()),
        nose=float(rng.normal()), mouth=float(rng.normal()), brow_tilt=float(rng.normal()),
        hair=str(rng.choice(list(HAIR), p=HAIR_SHARES["fair" if fair else "deep"])),
        eyes=str(rng.choice(list(EYES), p=(.28, .06, .16, .14, .26, .10) if fair else (.58, .36, .06, 0, 0,
            0))),
        curl=curly, hair_wish=float(rng.normal(0, .26)),
        tied=str(rng.choice(["", "tail", "pigtails"], p=(.62, .26, .12) if woman else (.7, .25, .05))),
        style=str(rng.choice(["fringe", "side", "centre", "back"], p=(.27, .30, .25, .18) if woman else (.20,
            .40, .06, .34))),
        greying=float(max(rng.normal(56, 8), 43) + (18 if woman and rng.random() < .35 else 0)),
        balding=float(rng.normal(58, 16) if rng.random() < (.06 if woman else .62) else 999),
        freckles=float(rng.random() < .25) * float(rng.uniform(.4, 1)) * (tone < .35),
        beard="" if woman else str(rng.choice(["", "stubble", "moustache", "goatee", "full"],
            p=(.52, .18, .07, .08, .15))),
        made_up=float(woman and rng.random() < .5) * float(rng.uniform(.4, 1)),
        earrings=bool(rng.random() < (.35 if woman else .03)), sighted=float(rng.random()),
            marks=int(rng.integers(1 << 30)),
    ), first


def _shot(who: Person, age: int, rng: np.random.Generator) -> Shot:
    smile = float(np.clip(rng.normal(.35, .4), -.4, 1))
    opened = float(np.clip(rng.normal(.5, .25), .15, 1)) if rng.random() < .38 else 0.0
    low_light = rng.random() < .06
    return Shot(
        yaw=float(np.clip(rng.normal(0, .16), -.42, .42)), pitch=float(np.clip(rng.normal(0, .06), -.15,
            .15)), roll=float(rng.normal(0, .05)),
        zoom=float(rng.normal(.985, .02)), dx=float(rng.normal(0, 1.5)), dy=float(rng.normal(0, 1.5)),
        smile=smile, opened=opened, closed_eyes=bool(rng.random() < (.06 if age < 2 else .02)),
            gaze=float(np.clip(rng.normal(0, .4), -1, 1)),
        light_x=float(rng.uniform(-1, 1)), light_y=float(rng.uniform(-1, .2)),
            shadow=float(rng.uniform(.06, .36)), warm=float(np.clip(rng.normal(.1, .5), -1, 1)),
        backdrop=str(rng.choice(["plain", "gradient", "blobs"], p=(.3, .35, .35))),
            backdrop_colour=int(rng.integers(len(BACKDROPS))),
        clothes=int(rng.integers(len(CLOTHES))), hair_cut=float(rng.normal(0, .06)),
        hat=str(rng.choice(["", "beanie", "cap"], p=(.94, .035, .025))),
        glasses=bool(who.sighted < np.interp(age, (2, 10, 40, 60, 80),
            (0, .08, .17, .36, .45)) and rng.random() < .85),
        blur=float(rng.exponential(.35)), noise=float(rng.exponential(2.0)),
            brightness=float(rng.uniform(.45, .65) if low_light else rng.normal(1, .06)),
        grey=bool(rng.random() < .06), quality=int(np.clip(rng.normal(90, 4), 70, 97)),
            texture=int(rng.integers(1 << 30)),
    )


def _labels(age: int, gender: int, rng: np.random.Generator) -> dict:
    """The labels of one picture: mostly right, some rounded, some wrong."""
    heap, wrong, flip = rng.random(3)
    size, sign = abs(rng.normal()), rng.choice([-1, 1])
    labelled, noisy = age, bool(wrong < .036)
    if noisy:
        off = int(sign) * max(2, round(size * (2 + .14 * age)))
        labelled = age + off if 1 <= age + off <= 105 else age - off
    elif age >= 20 and heap < .18:
        labelled = int(round(age / 5) * 5)
    elif 24 <= age <= 28 and heap < .45:
        labelled = 26                                   # the most frequent age of UTKFace
    flipped = flip < (.03 if age <= 5 else .008)
    return {"labelled_age": labelled, "labelled_gender": 1 - gender if flipped else gender, "noisy": noisy}


def _name(row: dict, number: int, picture: int) -> str:
    """A name as in UTKFace: [age]_[gender]_[race]_[date and time], with the labelled values."""
    when = datetime(2017, 1, 1) + timedelta(seconds=900 * number + 60 * picture,
        milliseconds=7919 * (number + picture) % 1000)
    stamp = f"{when:%Y%m%d%H%M%S}{when.microsecond // 1000:03d}"
    return f"{row['labelled_age']}_{row['labelled_gender']}_{row['race']}_{stamp}.jpg.chip.jpg"


def _album(number: int, seed: int) -> tuple[Person, list[Shot], list[dict]]:
    """Person `number`, their pictures, and a row of the truth for each; from their own random numbers."""
    rng = np.random.default_rng([seed, number])
    who, first = _person(number, rng)
    count = int(rng.choice(6, p=(.20, .24, .20, .16, .12, .08))) + 1
    ages = np.sort(rng.integers(0, 1 + min(1 + first // 3, 4), count)) + first
    shots, rows = [], []
    for picture, age in enumerate(ages.tolist()):
        shot = _shot(who, age, rng)
        exact = float(age + rng.random() if age > 1 else 2 * rng.random())    # 1 stands for all below 2
        row = {"person": who.person, "age": age, "gender": who.gender, "race": who.race,
            **_labels(age, who.gender, rng), "exact_age": exact}
        look = {name: value for name, value in {**asdict(who), **asdict(shot)}.items() if name not in row}
        shots.append(shot)
        rows.append({"file": _name(row, number, picture), **row, "twin_of": "", "twin_kind": "", **look})
    return who, shots, rows


def _plant_twins(albums: list[list[dict]], seed: int) -> None:
    """Add rows for the near-duplicates to the rows of each person, kind after kind in turn.

    Of the byte-identical ones half get another age and a sixth another gender, as found in UTKFace.
    """
    rng = np.random.default_rng([seed, len(albums), 1])
    originals = [(number, picture) for number, rows in enumerate(albums) for picture in range(len(rows))]
    wanted = round(len(originals) * TWIN_SHARE / (1 - TWIN_SHARE))
    order = ("identical", "mirrored", "reencoded", "resized", "identical", "cropped", "brightened")
    identical = 0
    for turn, at in enumerate(rng.permutation(len(originals))[:wanted].tolist()):
        number, picture = originals[at]
        row = dict(albums[number][picture])
        row |= {"twin_of": row["file"], "twin_kind": order[turn % len(order)]}
        if row["twin_kind"] == "identical":
            if identical % 2 == 0:
                off = int(rng.choice([-1, 1])) * max(1, round(abs(rng.normal()) * (1 + .1 * row["age"])))
                row["labelled_age"] += off if row["labelled_age"] + off >= 1 else -off
                row["noisy"] = True
            if identical % 6 == 1:
                row["labelled_gender"] = 1 - row["labelled_gender"]
            identical += 1
        row["file"] = _name(row, number, len(albums[number]))
        albums[number].append(row)


def twin(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Another file of the same picture: `kind` is one of TWIN_KINDS, `data` the bytes of the first file."""
    if kind not in TWIN_KINDS:
        raise ValueError(f"twin kind {kind!r}: should be one of {', '.join(TWIN_KINDS)}")
    if kind == "identical":
        return data
    image = Image.open(io.BytesIO(data)).convert("RGB")
    size = image.size
    if kind == "reencoded":
        return jpeg(image, int(rng.integers(50, 80)))
    if kind == "resized":
        image = image.resize((size[0] * 4 // 5, size[1] * 4 // 5), Image.Resampling.LANCZOS)
    elif kind == "cropped":                             # 2 to 4 % off each side, enlarged to the old size
        left, upper, right, lower = rng.uniform(.02, .04, 4) * size[0]
        image = image.resize(size, Image.Resampling.BICUBIC, (left, upper, size[0] - right, size[1] - lower))
    elif kind == "brightened":
        factor = rng.choice([.9, 1.1])
        image = image.point(lambda value: min(255, round(value * factor)))
    elif kind == "mirrored":
        image = ImageOps.mirror(image)
    return jpeg(image, 90)


def _draw_person(folder: Path, number: int, seed: int, size: int, twins: list[dict]) -> None:
    who, shots, rows = _album(number, seed)
    for shot, row in zip(shots, rows):
        (folder / row["file"]).write_bytes(photograph(who, shot, row["exact_age"], size))
    for i, row in enumerate(twins):
        data = (folder / row["twin_of"]).read_bytes()
        (folder / row["file"]).write_bytes(twin(data, row["twin_kind"],
            np.random.default_rng([seed, number, i])))


def draw(folder: str | Path, people: int = 800, seed: int = 0, size: int = FRAME, workers: int | None = None,
         progress: bool = True) -> pd.DataFrame:
    """Draw the pictures of `people` invented people into `folder`, and write and return the truth.

    The same `people`, `seed` and `size` give the same bytes whatever `workers` (default: all cores), as
    long as Pillow and NumPy are the same. A person is the same whatever `people`.

    Files are JPEG, RGB, `size` x `size` pixels (the "resized" twins 4/5 of it), named as in UTKFace by
    their *labelled* age, gender and race. ``truth.csv`` beside them has one row per file, sorted by file:
    ``file``, ``person``, ``age`` and ``gender`` as drawn (int; years; 0 male, 1 female), ``race`` (0-4),
    ``labelled_age``, ``labelled_gender``, ``noisy`` (the age label was made wrong; rounding is not counted),
    ``exact_age`` (float years), ``twin_of`` (file, or empty), ``twin_kind`` (one of TWIN_KINDS, or empty),
    then the fields of `Person` and `Shot` (for a twin those of the picture it was made from). Empty
    fields are empty text: read the file with ``keep_default_na=False``.

    Raises FileExistsError if `folder` has anything in it, ValueError for numbers out of range.
    """
    folder = Path(folder)
    if people < 1 or size < 32 or seed < 0:
        raise ValueError(f"people={people}, size={size}, seed={seed}: should be at least 1, 32 and 0")
    if people > 100_000:
        raise ValueError(f"people={people}: the dates in the names reach for 100,000 at most")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: give a new folder, or delete what is in it")
    albums = [_album(number, seed)[2] for number in range(people)]
    _plant_twins(albums, seed)
    tasks = (delayed(_draw_person)(folder, number, seed, size, [row for row in rows if row["twin_kind"]])
             for number, rows in enumerate(albums))
    # joblib's processes start afresh (a fork beside TensorFlow's threads may hang) and need no main guard
    done = Parallel(n_jobs=workers or cpu_count(), return_as="generator_unordered",
        idle_worker_timeout=20)(tasks)
    for _ in tqdm(done, total=people, desc="drawing the sample", unit="person", disable=not progress):
        pass
    truth = pd.DataFrame([row for rows in albums for row in rows]).sort_values("file", ignore_index=True)
    truth.to_csv(folder / "truth.csv", index=False)
    return truth


def folder(people: int = 800, seed: int = 0) -> Path:
    """The folder of the drawn sample, drawn at the first call and kept in `places.cache()`.

    A second process that asks meanwhile waits for the first.
    """
    path = cache() / f"sample-{people}-{seed}-v{VERSION}"
    with FileLock(f"{path}.lock"):
        if not path.is_dir():
            with written_whole(path) as part:
                draw(part, people, seed)
    return path

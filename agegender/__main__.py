"""The verbs that are no part of a run: ``python -m agegender data ...``, ``python -m agegender bench``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import pandas as pd

from . import bench, faces, predict

UTKFACE = "jangedoo/utkface-new"  # on Kaggle: the 23,708 aligned and cropped faces
BY_HAND = """\
UTKFace could not be fetched: {error}

By hand:
1. Open https://www.kaggle.com/datasets/{name}
   (or https://susanqq.github.io/UTKFace/, "Aligned&Cropped Faces"), read the terms (non-commercial research
   only) and download the archive; Kaggle may ask you to sign in.
2. Unpack it. The right folder holds files such as 25_1_2_20170116174525125.jpg.chip.jpg
   (Kaggle's archive holds the same faces several times: take its folder UTKFace). Subfolders are read too.
3. python -m agegender data check FOLDER
   make report PROFILE=coursework-small DATA=FOLDER"""


def fetch(to: str | None) -> int:
    """Download UTKFace through kagglehub, which shows progress and keeps what it has; say where it lies."""
    try:
        import kagglehub

        downloaded = Path(kagglehub.dataset_download(UTKFACE, **({"output_dir": to} if to else {})))
        # The archive holds copies of the same faces in crop_part1/ and utkface_aligned_cropped/.
        folder = downloaded / "UTKFace" if (downloaded / "UTKFace").is_dir() else downloaded
        found = faces.read(folder.resolve())
    except Exception as error:  # no library, network, consent or space: the way out is the same
        print(BY_HAND.format(error=f"{type(error).__name__}: {error}", name=UTKFACE), file=sys.stderr)
        return 1
    print(f"{found.found:,} faces in {found.root}\nFor non-commercial research only. Next:")
    print(f"  make report PROFILE=coursework-small DATA={shlex.quote(str(found.root))}")
    return 0


def check(source: str, person: str) -> int:
    """Print what `faces.read` makes of a source: counts, reasons, ages, genders."""
    try:
        found = faces.read(source, person=person)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    table, counts = found.table, found.counts()
    print(f"{found.title} ({found.kind}): {found.root}")
    print("{found:,} found = {read:,} read + {set_aside:,} set aside".format(**counts))
    for face in found.aside.head(20).itertuples():
        print(f"  {face.file}: {face.reason}")
    if len(found.aside) > 20:
        print(f"  and {len(found.aside) - 20:,} more")
    print("Pictures were not opened: one that cannot be decoded is set aside when a report is made.")
    for note in (*found.notes, found.notice):
        if note:
            print(note)
    if known := int(table["age"].notna().sum()):
        ages = table["age"]
        years = f"{ages.min():g} to {ages.max():g} years, median {ages.median():g}"
        print(f"Age: {years}, unknown {len(table) - known:,}")
    sex = table["gender"].map(dict(enumerate(faces.GENDERS))).fillna("unknown")
    race = table["race"].map(dict(enumerate(faces.RACES))).fillna("unknown")
    band = pd.Series(faces.age_band(table["age"])).cat.add_categories("unknown").fillna("unknown")
    print(f"\n{pd.crosstab(band, sex, margins=True, margins_name='all', rownames=['years'], colnames=[''])}")
    print("\nRace: " + ", ".join(f"{name} {count:,}" for name, count in race.value_counts().items()))
    print(f"Persons: {table['person'].nunique():,} known; faces without one {table['person'].isna().sum():,}")
    return 0


def store(release: str) -> int:
    """Copy what the book keeps of the reference runs; 1 where one is not finished. `release`: see ``released.save``."""
    from . import places, reference

    done, missing = reference.store()
    print(f"Stored in {reference.FOLDER.as_posix()}: {', '.join(done) or 'nothing'}")
    if missing:
        print(f"Not finished: {', '.join(missing)}. make reference DATA=... goes on from there.", file=sys.stderr)
    if release:
        from .models import released

        print(f"Released, in float16: {released.save(places.home() / release).name}")
    return 1 if missing else 0


def ask(data: str, split_list: str, only: str) -> int:
    """Have public tools predict, each into its folder, and print their figures; 1 where one was not asked."""
    from . import metrics, peers, places

    if only and only not in peers.PEERS:
        print(f"--only {only}: no such peer; {' and '.join(peers.PEERS)} are", file=sys.stderr)
        return 1
    failed = 0
    for name, peer in peers.PEERS.items():
        if only not in ("", name):
            continue
        try:
            folder, table = peers.run(peer, data, split_list)
        except (ModuleNotFoundError, OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
            continue
        print(f"{peer.title}: {folder.relative_to(places.home()).as_posix()}")
        for fold in ("val", "test"):
            part = table[table["fold"] == fold]
            found = metrics.estimates(part)
            age, gender = found["age MAE"].years(), found["gender accuracy"].percent()
            print(f"  {fold}, {len(part):,} faces: age MAE {age}; gender {gender}")
    return failed


def measure_crops(data: str, count: int) -> int:
    from . import crops

    return crops.measure(data, count)


def export(name: str, to: str, out: str, data: str) -> int:
    """Write a trained model as a file for other programs; say how far its answers lie from the model's own."""
    try:
        from . import exporting, trained

        model = trained.load(name)
        compare, whose = exporting.pictures(model, data)
        path = Path(out or f"agegender-{model.name}{exporting.SUFFIXES[to]}")
        done = exporting.export(model, to, path, compare)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    said = exporting.about(model)
    what = f", ONNX opset {exporting.OPSET}" if to == "onnx" else ""
    print(f"{done.path}: {done.size / 2**20:.1f} MiB{what}, {said['title']}")
    print(f"  takes {said['input']}")
    for output, what in said["outputs"].items():
        print(f"  {output}: {what}")
    print(
        f"Compared with the model itself on {done.compared} {whose}: "
        f"ages at most {done.years:.1g} years apart, probabilities {done.probability:.1g}"
    )
    times = done.speed / done.speed_before
    before = f"that of Keras ({done.speed_before:,.0f})"
    print(f"Speed here: {done.speed:,.0f} faces a second, {times:.1f} times {before}")
    print(said["licence"])
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agegender", description=__doc__.partition(":")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)

    data = verbs.add_parser("data", help="fetch UTKFace, or check a source of faces")
    actions = data.add_subparsers(dest="action", required=True)
    getting = actions.add_parser("fetch", help="download UTKFace through kagglehub")
    getting.add_argument("--to", metavar="FOLDER", help="where to (default: kagglehub's own cache)")
    getting.set_defaults(run=lambda given: fetch(given.to))
    checking = actions.add_parser("check", help="say what can be read, and what not and why")
    checking.add_argument("source", help='a folder, age_gender.csv, labels.csv or "sample"')
    checking.add_argument("--person", default="", metavar="REGEX", help="one group: the person in a path")
    checking.set_defaults(run=lambda given: check(given.source, given.person))

    measuring = verbs.add_parser(
        "bench", help="measure how fast this machine trains, and what a profile will take"
    )
    bench.add_options(measuring)
    measuring.set_defaults(run=bench.run)

    storing = verbs.add_parser(
        "reference", help="store the finished runs of the profile reference for the book, say what is missing"
    )
    storing.add_argument("--release", default="", metavar="RUN", help="folder of the run to keep as released model")
    storing.set_defaults(run=lambda given: store(given.release))

    asking = verbs.add_parser("peers", help="have public ready-made tools predict, to compare with")
    asking.add_argument("data", help='a folder, age_gender.csv, labels.csv or "sample"')
    asking.add_argument("--split-list", default="", metavar="PATH", help="of a published split")
    asking.add_argument("--only", default="", metavar="NAME", help="one of them")
    asking.set_defaults(run=lambda given: ask(given.data, given.split_list, given.only))

    predicting = verbs.add_parser("predict", help="say the age and gender of the faces in photographs")
    predict.add_options(predicting)
    predicting.set_defaults(run=predict.run)

    cropping = verbs.add_parser("crops", help="measure where UTKFace has the eyes, and what another crop costs")
    cropping.add_argument("data", help="the folder of UTKFace")
    cropping.add_argument("--count", type=int, default=400, metavar="N", help="training faces, and test faces (400)")
    cropping.set_defaults(run=lambda given: measure_crops(given.data, given.count))

    exporting = verbs.add_parser("export", help="write a trained model as a file for other programs")
    exporting.add_argument("--model", default="released", metavar="RUN", help="its folder (default: released)")
    exporting.add_argument("--to", required=True, choices=("onnx", "litert", "keras"), help="the format")
    exporting.add_argument("--out", default="", metavar="FILE", help="default: agegender-RUN.onnx (or so) here")
    exporting.add_argument("--data", default="", metavar="FACES", help="to compare on (default: the run's)")
    exporting.set_defaults(run=lambda given: export(given.model, given.to, given.out, given.data))

    given = parser.parse_args(arguments)
    return given.run(given)


if __name__ == "__main__":
    sys.exit(main())

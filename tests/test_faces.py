"""Every source of faces, every bad input, and the account of what was set aside. No real face is stored."""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agegender import __main__, faces

SHARED = Path(__file__).resolve().parents[2] / "shared"
STAMP = "20170116174525125"


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """Cache and home of each test are its own."""
    monkeypatch.setenv("AGEGENDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path / "home"))


def put(folder: Path, *names: str) -> Path:
    """`folder` with a small picture under each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 128).save(folder / name, format="JPEG")
    return folder


def labels(folder: Path, text: str, *pictures: str) -> Path:
    put(folder, *pictures)
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder


def grey_csv(path: Path, rows: list[tuple]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        out.write("age,ethnicity,gender,img_name,pixels\n")
        out.writelines(",".join(map(str, row)) + "\n" for row in rows)
    return path


def pixels(value: int = 7, count: int = 2304) -> str:
    return " ".join([str(value)] * count)


def reasons(found: faces.Faces) -> dict[str, str]:
    assert sum(found.counts().values()) == 2 * found.found  # read + set aside = found
    return dict(zip(found.aside["file"], found.aside["reason"]))


# UTKFace folders


@pytest.mark.parametrize(
    "name, age, gender, race",
    [
        (f"25_1_2_{STAMP}.jpg.chip.jpg", 25, 1, 2),
        (f"25_0_4_{STAMP}.jpg", 25, 0, 4),
        (f"116_0_0_{STAMP}.JPG", 116, 0, 0),
        (f"0_1_3_{STAMP}.png", 0, 1, 3),
        (f"39_1_{STAMP}.jpg.chip.jpg", 39, 1, None),  # no race
        (f"39_1__{STAMP}.jpg.chip.jpg", 39, 1, None),  # empty race
        (f"24_0_1_{STAMP} .jpg.chip.jpg", 24, 0, 1),  # stray space
        (f"55_0_0_{STAMP}jpg.chip.jpg", 55, 0, 0),  # missing dot
        (f"55_0_0_{STAMP}jpg", 55, 0, 0),  # missing dot, and no other
        ("14_0_0_2017011022340900.jpg.chip.jpg", 14, 0, 0),  # short time
        ("28_1_2_201701161846515488.jpg.chip.jpg", 28, 1, 2),  # long time
        ("44_1_4_0001.webp", 44, 1, 4),  # a number for a time
    ],
)
def test_utkface_names(tmp_path, name, age, gender, race):
    face = faces.read(put(tmp_path / "set", name)).table.iloc[0]
    assert (face["file"], face["age"], face["gender"]) == (name, age, gender)
    assert pd.isna(face["race"]) if race is None else face["race"] == race


@pytest.mark.parametrize(
    "name, reason",
    [
        (f"117_1_2_{STAMP}.jpg", "age '117' is impossible: a number of years from 0 to 116 is right"),
        (f"-3_1_2_{STAMP}.jpg", "age '-3' is impossible"),
        (f"25_2_2_{STAMP}.jpg", "gender '2' is impossible: 0, m or male, or 1, f or female is right"),
        (f"25_1_7_{STAMP}.jpg", "race '7' is impossible"),
        (f"53__0_{STAMP}.jpg", "the name gives no gender"),
        (f"_1_0_{STAMP}.jpg", "the name gives no age"),
        ("holiday.jpg", "the name is not [age]_[gender]_[race]_[date&time].jpg"),
        ("25_1_2.jpg", "the name is not"),
        ("25.5_1_2_20170116.jpg", "the name is not"),
    ],
)
def test_bad_names_are_set_aside(tmp_path, name, reason):
    found = faces.read(put(tmp_path / "set", name, f"25_1_2_{STAMP}.jpg"))
    assert reasons(found)[name].startswith(reason)
    assert found.counts() == {"found": 2, "read": 1, "set_aside": 1}


def test_folder_with_parts_and_other_files(tmp_path):
    names = [f"part{part}/{age}_1_2_{STAMP}.jpg" for part, age in ((1, 5), (2, 50), (3, 9))]
    folder = put(tmp_path / "set", *names, f".hidden/1_1_1_{STAMP}.jpg", f".part-x_1_1_{STAMP}.jpg")
    (folder / "README.md").write_text("not a face")
    found = faces.read(folder)
    assert list(found.table["file"]) == names and found.found == 3
    assert (found.root, found.title, found.kind) == (folder, "set", "UTKFace folder")
    assert found.table.dtypes.astype(str).to_dict() == {
        "file": "str", "age": "float64", "gender": "Int8", "race": "Int8", "person": "object",
    }  # fmt: skip
    assert not found.drawn and not found.notice and found.limited_from is None and not found.notes


def test_same_name_in_two_folders_is_told(tmp_path):
    found = faces.read(put(tmp_path / "set", f"a/1_1_1_{STAMP}.jpg", f"b/1_1_1_{STAMP}.jpg"))
    note = f"1 file names occur in several folders, as a/1_1_1_{STAMP}.jpg and b/1_1_1_{STAMP}.jpg."
    assert found.notes == (note,)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_what_is_no_file_with_bytes_is_set_aside(tmp_path):
    folder = put(tmp_path / "set", f"25_1_2_{STAMP}.jpg")
    (folder / f"26_1_2_{STAMP}.jpg").touch()
    (folder / f"27_1_2_{STAMP}.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "linked").symlink_to(put(tmp_path / "other", f"1_1_1_{STAMP}.jpg"))
    os.mkfifo(folder / f"28_1_2_{STAMP}.jpg")
    (folder / f"29_1_2_{STAMP}.jpg").symlink_to(folder / f"25_1_2_{STAMP}.jpg")  # a link to a picture is one
    found = faces.read(folder)
    assert list(found.table["age"]) == [25, 29]
    assert reasons(found) == {
        f"26_1_2_{STAMP}.jpg": "the file is empty (0 bytes)",
        f"27_1_2_{STAMP}.jpg": "there is no such file",
        f"28_1_2_{STAMP}.jpg": "this is no regular file",
        "linked": "this is a folder: a picture is right (give a linked folder as data itself)",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_name_that_is_no_text_is_set_aside(tmp_path):
    folder = put(tmp_path / "set", f"25_1_2_{STAMP}.jpg")
    Path(os.fsdecode(os.fsencode(folder) + b"/26_1_2_\xff.jpg")).write_bytes(b"x")
    assert "cannot be printed" in reasons(faces.read(folder))["'26_1_2_\\udcff.jpg'"]
    faces.fingerprint(folder)


# Sources that cannot be used


@pytest.mark.parametrize("data", ["nowhere", "nowhere/labels.csv", ""])
def test_missing_source(data):
    with pytest.raises((FileNotFoundError, ValueError), match="data fetch"):
        faces.read(data)


def test_missing_source_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        faces.read("nowhere")
    assert f"tried {tmp_path / 'nowhere'} and {tmp_path / 'home' / 'nowhere'}" in str(error.value)


def test_relative_path_counts_from_home_too(tmp_path, monkeypatch):
    put(tmp_path / "beside", f"25_1_2_{STAMP}.jpg")
    (tmp_path / "home" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / "notebooks")
    found = faces.read("../beside")  # as given from home, used in a notebook
    assert found.root == tmp_path / "beside" and found.title == "beside"


def test_folder_without_faces(tmp_path):
    with pytest.raises(ValueError, match="holds no faces: pictures .*are right\nTo get UTKFace"):
        faces.read(put(tmp_path / "empty"))


def test_file_that_is_no_source(tmp_path):
    (tmp_path / "faces.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="faces.zip is neither a folder nor a .csv .*unpacked"):
        faces.read(tmp_path / "faces.zip")


def test_nothing_usable_quotes_reasons(tmp_path):
    message = r"none of the 2 faces .*\n  1_9_1_1.jpg: gender '9'.*\n  b.jpg: the name"
    with pytest.raises(ValueError, match=message):
        faces.read(put(tmp_path / "set", "b.jpg", "1_9_1_1.jpg"))


def test_negative_limit():
    with pytest.raises(ValueError, match="limit -1 is impossible"):
        faces.read(limit=-1)


# age_gender.csv


def test_age_gender_csv(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, 2304)
    rows = [
        (1, 2, 0, f"{STAMP}.jpg.chip.jpg", " ".join(map(str, image))),
        (100, 0, 1, f"{STAMP}.jpg.chip.jpg", pixels(255)),  # from the same photograph: another face
        (26, "", "1", "20170116.jpg", pixels(0)),
    ]
    path = grey_csv(tmp_path / "kaggle" / "age_gender.csv", rows)
    found = faces.read(path)
    assert found.kind == found.title == "age_gender.csv" and found.counts()["read"] == 3
    assert list(found.table["file"]) == [f"100_1_0_{STAMP}.png", f"1_0_2_{STAMP}.png", "26_1__20170116.png"]
    assert list(found.table["race"].fillna(-1)) == [0, 2, -1]
    with Image.open(found.root / f"1_0_2_{STAMP}.png") as picture:
        assert picture.mode == "L" and (np.asarray(picture).ravel() == image).all()
    # Named by its folder it is the same, and it is unpacked once.
    monkeypatch.setattr(faces, "_face_of_row", None)
    assert faces.read(path.parent).table.equals(found.table)


def test_bad_rows_of_age_gender_csv(tmp_path):
    name = "20170116.jpg"
    bad = {
        "117": (117, 0, 0, "a.jpg", pixels()),
        "''": ("", 0, 0, "b.jpg", pixels()),
        "gender '3'": (20, 0, 3, "c.jpg", pixels()),
        "race '9'": (20, 9, 0, "d.jpg", pixels()),
        "2303 values; 48 x 48 = 2304": (20, 0, 0, "e.jpg", pixels(count=2303)),
        "value 256": (20, 0, 0, "f.jpg", pixels(256)),
        "value -1": (20, 0, 0, "g.jpg", pixels(-1)),
        "value x": (20, 0, 0, "h.jpg", pixels().replace("7", "x", 1)),
        "same labels as row 2": (20, 0, 0, name, pixels()),
        "'../i.jpg'": (20, 0, 0, "../i.jpg", pixels()),
        "age '20.5'": (20.5, 0, 0, "j.jpg", pixels()),
        "as many values": (20, 0, 0),
    }
    path = grey_csv(tmp_path / "age_gender.csv", [(20, 0, 0, name, pixels()), *bad.values()])
    found = faces.read(path)
    assert found.counts() == {"found": 13, "read": 1, "set_aside": 12}
    texts = list(found.aside["reason"])
    for row, (piece, values) in enumerate(bad.items(), start=3):
        text = next(text for text in texts if text.startswith(f"age_gender.csv, row {row}: "))
        assert (piece if piece != "''" else "no age is given") in text
    assert not (tmp_path / "cache").parent.joinpath("i.png").exists()


def test_age_gender_csv_without_columns_or_rows(tmp_path):
    path = tmp_path / "age_gender.csv"
    path.write_text("age,ethnicity,pixels\n")
    with pytest.raises(ValueError, match="age_gender.csv, row 1: no column gender, img_name; age, ethnicity"):
        faces.read(path)
    with pytest.raises(ValueError, match="age_gender.csv holds no faces: it has a header and no rows"):
        faces.read(grey_csv(path, []))


def test_age_gender_csv_is_unpacked_in_bounded_memory(tmp_path):
    rows = [(age % 100, 0, age % 2, f"{age:017d}.jpg", pixels(200)) for age in range(500)]
    path = grey_csv(tmp_path / "age_gender.csv", rows)
    del rows
    tracemalloc.start()
    assert faces.read(path).found == 500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def test_changed_csv_is_unpacked_again(tmp_path):
    path = grey_csv(tmp_path / "age_gender.csv", [(20, 0, 0, "a.jpg", pixels())])
    before = faces.fingerprint(path)
    assert faces.read(path).found == 1
    grey_csv(path, [(20, 0, 0, "a.jpg", pixels()), (30, 0, 0, "b.jpg", pixels())])
    assert faces.read(path).found == 2 and faces.fingerprint(path) != before


# labels.csv


def test_labels_csv(tmp_path):
    text = (
        "File,Age,Gender,Race,Person\n"
        "a.jpg,25,M,White,anna\n"
        "sub/b.jpg,30.5,female,3,\n"
        "./c.jpg,,1,others,ben\n"
        "\n"
        "sub\\d.jpg,7,NA,,ben\n"
    )
    folder = labels(tmp_path / "mine", text, "a.jpg", "sub/b.jpg", "c.jpg", "sub/d.jpg")
    found = faces.read(folder)
    assert (found.kind, found.title, found.root, found.found) == ("labels.csv", "mine", folder, 4)
    table = found.table.set_index("file")
    assert list(table.index) == ["a.jpg", "c.jpg", "sub/b.jpg", "sub/d.jpg"]
    assert list(table["age"].fillna(-1)) == [25, -1, 30.5, 7]
    assert list(table["gender"].fillna(-1)) == [0, 1, 1, -1]
    assert list(table["race"].fillna(-1)) == [0, 4, 3, -1]
    assert list(table["person"]) == ["anna", "ben", None, "ben"]
    assert faces.read(folder / "labels.csv").table.equals(found.table)


def test_labels_csv_from_a_spreadsheet(tmp_path):
    folder = labels(tmp_path / "mine", "\ufeffpath;gender;name\r\na.jpg;f;x\r\n", "a.jpg", "b.jpg")
    found = faces.read(folder)
    assert list(found.table["gender"]) == [1] and found.table["age"].isna().all()
    assert found.notes == (
        "Columns of labels.csv that were not used: name.",
        "1 pictures in the folder are not named in labels.csv and were left alone.",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_bad_rows_of_labels_csv(tmp_path):
    outside = put(tmp_path, "out.jpg", "out/x.jpg") / "out.jpg"
    folder = put(tmp_path / "mine", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (folder / "link.jpg").symlink_to(outside)
    (folder / "linked").symlink_to(outside.parent / "out")
    (folder / "inner.jpg").symlink_to(folder / "d.jpg")
    (folder / "none.jpg").touch()
    (folder / "sub").mkdir()
    rows = {
        "inner.jpg,20,0": None,  # a link that stays inside
        "a.jpg,20,0": None,
        "a.jpg,20,male": "the same as row 3",
        "b.jpg,20,0": "rows 5 and 6 contradict each other",
        "b.jpg,21,0": "rows 5 and 6 contradict each other",
        "missing.jpg,20,0": "file 'missing.jpg': there is no such file in mine",
        "../out.jpg,20,0": "file '../out.jpg' leaves the folder: a path below it is right",
        f"{outside},20,0": f"file '{outside}' is absolute: a path below the folder is right",
        "C:\\out.jpg,20,0": "file 'C:\\\\out.jpg' is absolute",
        "link.jpg,20,0": "file 'link.jpg' leads out of the folder through a link",
        "linked/x.jpg,20,0": "file 'linked/x.jpg' leads out of the folder through a link",
        "none.jpg,20,0": "the file is empty (0 bytes)",
        "sub,20,0": "this is a folder",
        "a.jpg/x,20,0": "file 'a.jpg/x': there is no such file in mine",
        ",20,0": "file '': a path below the folder is right",
        "c.jpg,200,0": "age '200' is impossible: a number of years from 0 to 116 is right",
        "c.jpg,-1,0": "age '-1' is impossible",
        "c.jpg,inf,0": "age 'inf' is impossible",
        "c.jpg,old,0": "age 'old' is impossible",
        "c.jpg,20,2": "gender '2' is impossible: 0, m or male, or 1, f or female is right",
        "c.jpg,,": "neither age nor gender is given",
        "c.jpg,20": "3 values, as many as the header has, are right",
        "c.jpg,20,0,0": "3 values, as many as the header has, are right",
    }
    (folder / "labels.csv").write_text("file,age,gender\n" + "\n".join(rows) + "\n")
    found = faces.read(folder)
    assert list(found.table["file"]) == ["a.jpg", "inner.jpg"] and found.found == len(rows)
    texts = list(found.aside["reason"])
    for number, reason in enumerate(rows.values(), start=2):
        told = [text for text in texts if text.startswith(f"labels.csv, row {number}: ")]
        assert told == [] if reason is None else told[0].startswith(f"labels.csv, row {number}: {reason}")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "row 1 is empty"),
        ("file,race\na.jpg,1\n", "row 1: columns file, race; file .or path. and age or gender"),
        ("name,age\na.jpg,1\n", "row 1: columns name, age; file .or path."),
        ("file,age,Age\na.jpg,1,2\n", "row 1: column 'age' is there twice"),
        ("file,age\n", "holds no faces: it has a header and no rows"),
    ],
)
def test_unusable_labels_csv(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"labels.csv.*{message}"):
        faces.read(labels(tmp_path / "mine", text))


def test_labels_csv_that_is_no_text(tmp_path):
    folder = put(tmp_path / "mine")
    (folder / "labels.csv").write_bytes(b"file,age\nJos\xe9.jpg,3\n")
    with pytest.raises(ValueError, match=r"labels.csv, row 2: .*Jos.xe9.* is not UTF-8; save"):
        faces.read(folder)
    (folder / "labels.csv").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="labels.csv, row 1: .* is not UTF-8"):
        faces.read(folder)


# Persons


@pytest.mark.parametrize(
    "names, pattern",
    [
        ([f"p7-25_1_2_{STAMP}.jpg", f"p8-26_1_2_{STAMP}.jpg"], r"^(\w+?)-"),
        ([f"p7_25_1_2_{STAMP}.jpg", f"p8_26_1_2_{STAMP}.jpg"], r"^(p\d+)"),
        ([f"p7/25_1_2_{STAMP}.jpg", f"p8/26_1_2_{STAMP}.jpg"], r"^(\w+)/"),
        ([f"25_1_2_{STAMP}-p7.jpg", f"26_1_2_{STAMP}-p8.jpg"], r"(-)(?P<person>p\d)"),
    ],
)
def test_person_in_the_name(tmp_path, names, pattern):
    table = faces.read(put(tmp_path / "set", *names), person=pattern).table
    assert list(table["person"]) == ["p7", "p8"] and list(table["age"]) == [25, 26]


def test_numbers_at_the_start_are_persons_not_ages(tmp_path):
    table = faces.read(put(tmp_path / "set", f"0007_25_1_2_{STAMP}.jpg"), person=r"^(\d+)_").table
    assert list(table["person"]) == ["0007"] and list(table["age"]) == [25]


def test_unmatched_faces_have_no_person(tmp_path):
    folder = put(tmp_path / "set", f"7/25_1_2_{STAMP}.jpg", f"26_1_2_{STAMP}.jpg")
    found = faces.read(folder, person=r"^(\d+)/")
    assert list(found.table["person"]) == [None, "7"]
    assert found.notes == ("The person pattern does not match 1 of 2 names.",)


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("(", "person pattern '\\(' is no regular expression"),
        (r"\d+", "has 0 groups"),
        (r"(\d)(\d)", "has 2 groups"),
        ("(never)", f"matches none of 1 names, as '25_1_2_{STAMP}.jpg'"),
    ],
)
def test_bad_person_pattern(tmp_path, pattern, message):
    with pytest.raises(ValueError, match=message):
        faces.read(put(tmp_path / "set", f"25_1_2_{STAMP}.jpg"), person=pattern)


def test_pattern_goes_before_the_column(tmp_path):
    folder = labels(tmp_path / "mine", "file,age,person\np7/a.jpg,3,anna\n", "p7/a.jpg")
    found = faces.read(folder, person="(p.)/")
    assert list(found.table["person"]) == ["p7"]
    assert found.notes == ("The person pattern was used, not the column person of labels.csv.",)


# The drawn sample


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    folder = put(tmp_path / "sample-800-0", f"25_1_2_{STAMP}.jpg", f"30_0_1_{STAMP}.jpg")
    (folder / "truth.csv").write_text(
        f"file,person,age,twin_of\n25_1_2_{STAMP}.jpg,7,24,\n30_0_1_{STAMP}.jpg,8,31,\n", encoding="utf-8"
    )
    import agegender

    stand_in = SimpleNamespace(folder=lambda: folder)
    monkeypatch.setattr(agegender, "sample", stand_in, raising=False)
    monkeypatch.setitem(sys.modules, "agegender.sample", stand_in)
    return folder


def test_drawn_sample(drawn):
    found = faces.read("sample")
    assert found.drawn and found.kind == found.title == "drawn sample"
    assert found.notice == "These faces are drawn; the numbers on this page describe no people."
    assert list(found.table["person"]) == ["7", "8"]
    assert list(found.table["age"]) == [25, 30]  # the labels, not the truth
    assert faces.read(drawn).drawn  # under any name
    assert faces.fingerprint("sample") == "sample"


# The account


def test_set_aside_keeps_the_sum(tmp_path):
    names = [f"{age}_1_2_{STAMP}.jpg" for age in (10, 11, 12)]
    found = faces.read(put(tmp_path / "set", *names, "odd.jpg"))
    after = found.set_aside({names[1]: "truncated"})
    assert after.counts() == {"found": 4, "read": 2, "set_aside": 2} and found.counts()["read"] == 3
    assert list(after.table.index) == [0, 1] and reasons(after)[names[1]] == "truncated"
    assert after.table.dtypes.equals(found.table.dtypes) and after.aside.dtypes.equals(found.aside.dtypes)
    with pytest.raises(ValueError, match="cannot set aside .*not in the table"):
        after.set_aside({names[1]: "again"})
    with pytest.raises(ValueError, match="none of the 4 faces found can be used.*\n  10_1_2_.*: no picture"):
        after.set_aside(dict.fromkeys(after.table["file"], "no picture"))


def test_faces_that_do_not_add_up_are_refused(tmp_path):
    found = faces.read(put(tmp_path / "set", f"25_1_2_{STAMP}.jpg"))
    with pytest.raises(ValueError, match="1 read . 0 set aside is not 2 found"):
        replace(found, found=2)
    with pytest.raises(ValueError, match="twice"):
        replace(found, table=pd.concat([found.table] * 2), found=2)


def test_order_of_files_and_rows_does_not_matter(tmp_path, monkeypatch):
    names = [f"{age}_{age % 2}_2_{STAMP}.jpg" for age in range(60)] + ["odd.jpg"]
    folder = put(tmp_path / "set", *names)
    one, some = faces.read(folder), faces.read(folder, limit=20)
    listed = list(faces._pictures(folder))
    monkeypatch.setattr(faces, "_pictures", lambda root: iter(listed[::-1]))
    other, same = faces.read(folder), faces.read(folder, limit=20)
    assert one.table.equals(other.table) and one.aside.equals(other.aside)
    assert some.table.equals(same.table) and some.aside.equals(same.aside)
    monkeypatch.undo()
    rows = [f"x{n}.jpg,{n},{n % 2}" for n in range(10)] + ["x3.jpg,4,1", "y.jpg,1,1"]
    pictures = [f"x{n}.jpg" for n in range(10)]
    down = faces.read(labels(tmp_path / "down", "\n".join(["file,age,gender", *rows]), *pictures))
    up = faces.read(labels(tmp_path / "up", "\n".join(["file,age,gender", *rows[::-1]]), *pictures))
    assert down.table.equals(up.table) and list(down.aside["file"]) == list(up.aside["file"])


def test_limit(tmp_path):
    names = [f"{age}_1_2_{STAMP}.jpg" for age in range(50)] + [f"odd{n}.jpg" for n in range(50)]
    folder = put(tmp_path / "set", *names)
    some = faces.read(folder, limit=20)
    assert some.found == 20 and some.limited_from == 100 and 0 < len(some.aside) < 20
    more = faces.read(folder, limit=30)
    assert set(some.table["file"]) < set(more.table["file"])
    assert faces.read(folder, limit=100).limited_from is None


def test_limit_takes_whole_persons(tmp_path):
    names = [f"p{person}/{age}_1_2_{STAMP}.jpg" for person in range(10) for age in range(3)]
    folder = put(tmp_path / "set", *names)
    some = faces.read(folder, person=r"^(\w+)/", limit=10).table
    assert len(some) == 12 and (some["person"].value_counts() == 3).all()


def test_fingerprint(tmp_path):
    folder = put(tmp_path / "set", f"25_1_2_{STAMP}.jpg", f"a/26_1_2_{STAMP}.jpg")
    first = faces.fingerprint(folder)
    assert first == faces.fingerprint(str(folder)) and len(first) == 32
    os.utime(folder / f"25_1_2_{STAMP}.jpg", (1, 1))
    second = faces.fingerprint(folder)
    (folder / "labels.csv").write_text(f"file,age\n25_1_2_{STAMP}.jpg,3\n")
    third = faces.fingerprint(folder)
    os.utime(folder / "labels.csv", (1, 1))
    assert len({first, second, third, faces.fingerprint(folder)}) == 4
    with pytest.raises(FileNotFoundError):
        faces.fingerprint(tmp_path / "nowhere")


def test_age_band():
    bands = faces.age_band(pd.Series([0, 5, 5.9, 6, 17, 18, 66, 116, None]))
    assert list(bands[:-1]) == ["0-5", "0-5", "0-5", "6-12", "13-17", "18-25", "66+", "66+"]
    assert pd.isna(bands[-1]) and bands.ordered and len(bands.categories) == len(faces.AGE_BANDS)
    assert list(faces.age_band(np.array([30]))) == ["26-35"]
    with pytest.raises(ValueError, match="age -1.0 is impossible"):
        faces.age_band([3, -1])


# The verb data


def test_check_prints_counts_and_reasons(tmp_path, capsys):
    folder = put(tmp_path / "set", f"25_1_2_{STAMP}.jpg", f"66_0_{STAMP}.jpg", "odd.jpg")
    assert __main__.main(["data", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    for piece in ("3 found = 2 read + 1 set aside", "odd.jpg: the name is", "25 to 66 years", "unknown 1"):
        assert piece in out


def test_check_of_unknown_labels(tmp_path, capsys):
    folder = labels(tmp_path / "mine", "file,gender,person\na.jpg,f,anna\n", "a.jpg")
    assert __main__.main(["data", "check", str(folder)]) == 0
    assert "Persons: 1 known" in capsys.readouterr().out


def test_check_fails_without_a_trace(capsys):
    assert __main__.main(["data", "check", "nowhere"]) == 1
    assert "no faces at 'nowhere': tried" in capsys.readouterr().err


def test_fetch(tmp_path, monkeypatch, capsys):
    asked = []
    download = put(tmp_path / "my downloads", f"UTKFace/25_1_2_{STAMP}.jpg", f"crop_part1/25_1_2_{STAMP}.jpg")

    def dataset_download(name, **options):
        asked.append((name, options))
        return str(download)

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))
    assert __main__.main(["data", "fetch"]) == 0
    assert __main__.main(["data", "fetch", "--to", "there"]) == 0
    assert asked == [("jangedoo/utkface-new", {}), ("jangedoo/utkface-new", {"output_dir": "there"})]
    out = capsys.readouterr().out
    assert f"1 faces in {download / 'UTKFace'}\n" in out  # not the archive's other copies of the same faces
    assert f"make report PROFILE=coursework-small DATA='{download / 'UTKFace'}'" in out


def no_network(*_, **__):
    raise ConnectionError("Name or service not known")


@pytest.mark.parametrize(
    "library, cause",
    [
        (None, "ModuleNotFoundError"),  # None in sys.modules: the import fails
        (SimpleNamespace(dataset_download=no_network), "ConnectionError: Name or service not known"),
        (SimpleNamespace(dataset_download=lambda *_: "nowhere"), "FileNotFoundError: no faces at"),
    ],
)
def test_fetch_that_fails_says_what_to_do(monkeypatch, capsys, library, cause):
    monkeypatch.setitem(sys.modules, "kagglehub", library)
    assert __main__.main(["data", "fetch"]) == 1
    told = capsys.readouterr().err
    for piece in (cause, "By hand", "kaggle.com/datasets/jangedoo/utkface-new", "25_1_2_2017", "make report"):
        assert piece in told


# Real faces, where they lie beside the checkout


@pytest.fixture
def utkface():
    folder = SHARED / "data" / "utkface"
    if not folder.is_dir():
        pytest.skip(f"no real faces at {folder}")
    return folder


def test_utkface(utkface):
    start = time.perf_counter()
    found = faces.read(utkface)
    assert time.perf_counter() - start < 5  # about 0.3 s alone on two cores
    assert found.counts() == {"found": 20708, "read": 20708, "set_aside": 0}
    table = found.table
    assert table["age"].between(1, 116).all() and table["gender"].notna().all()
    assert list(table.loc[table["race"].isna(), "file"]) == [
        "39_1_20170116174525125.jpg.chip.jpg",
        "61_1_20170109142408075.jpg.chip.jpg",
        "61_1_20170109150557335.jpg.chip.jpg",
    ]
    odd = table.loc[~table["file"].str.fullmatch(r"\d+_\d_(\d_)?\d{17}\.jpg\.chip\.jpg")].set_index("file")
    assert list(odd[["age", "gender", "race"]].itertuples(name=None)) == [
        ("14_0_0_2017011022340900.jpg.chip.jpg", 14, 0, 0),
        ("24_0_1_20170116220224657 .jpg.chip.jpg", 24, 0, 1),
        ("28_1_2_201701161846515488.jpg.chip.jpg", 28, 1, 2),
        ("38_0_1_201701162330572788.jpg.chip.jpg", 38, 0, 1),
    ]


def test_age_gender_csv_made_of_utkface(utkface, tmp_path):
    """The Kaggle file's form, written from real pictures, reads as the folder does."""
    chosen = faces.read(utkface, limit=200)
    rows = []
    for face in chosen.table.dropna(subset="race").itertuples():
        with Image.open(utkface / face.file) as picture:
            grey = np.asarray(picture.convert("L").resize((48, 48))).ravel()
        name = face.file.split("_")[-1]
        rows.append((int(face.age), face.race, face.gender, name, " ".join(map(str, grey))))
    again = faces.read(grey_csv(tmp_path / "age_gender.csv", rows))
    assert again.counts() == {"found": len(rows), "read": len(rows), "set_aside": 0}
    key = again.table["file"].str.removesuffix(".png") + ".jpg.chip.jpg"
    both = again.table.assign(file=key).merge(chosen.table, on=["file", "age", "gender", "race"])
    assert len(both) == len(rows)

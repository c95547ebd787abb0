"""Pictures as arrays: right values, set aside with reasons, reused, and rebuilt when they change."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from agegender import faces, pixels


def picture(seed: int, size=(200, 200), **save) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size).save(buffer, "JPEG", **save)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "faces"
    place.mkdir()
    for i in range(150):  # more than two workers' chunks
        (place / f"{20 + i % 60}_{i % 2}_0_2017010100000{i:04d}.jpg").write_bytes(picture(i))
    return place


def test_pixels_are_pillows_own(folder, own_cache):
    opened = pixels.open_pictures(faces.read(folder), 64, progress=False)
    assert opened.pixels.shape == (150, 64, 64, 3) and opened.pixels.dtype == np.uint8
    assert not opened.pixels.flags.writeable
    for row in (0, 70, 149):
        with Image.open(folder / opened.faces.table["file"][row]) as image:
            assert (opened.pixels[row] == np.asarray(image.resize((64, 64)))).all()
    assert opened.thumbs.shape == (150, 64, 64)
    assert opened.info["width"].eq(200).all()
    assert np.allclose(opened.info["brightness"], opened.thumbs.mean((1, 2)))


def test_unreadable_pictures_are_set_aside_with_the_reason(folder, own_cache):
    names = sorted(p.name for p in folder.iterdir())
    (folder / names[3]).write_bytes(picture(1)[:600])  # ends too early
    (folder / names[70]).write_text("not a picture")
    opened = pixels.open_pictures(faces.read(folder), 32, progress=False)
    assert opened.faces.counts() == {"found": 150, "read": 148, "set_aside": 2}
    assert set(opened.faces.aside["file"]) == {names[3], names[70]}
    assert opened.faces.aside["reason"].str.contains("unreadable picture").all()
    assert not opened.faces.aside["reason"].str.contains("0x").any()
    assert len(opened.pixels) == len(opened.thumbs) == len(opened.info) == 148
    with Image.open(folder / opened.faces.table["file"][147]) as image:  # rows after the gaps moved up
        assert (opened.pixels[147] == np.asarray(image.resize((32, 32)))).all()


def test_nothing_readable_is_an_error_that_names_a_file(tmp_path, own_cache):
    (tmp_path / "25_1_0_20170101000000000.jpg").write_text("no")
    with pytest.raises(ValueError, match="25_1_0_20170101000000000.jpg"):
        pixels.open_pictures(faces.read(tmp_path), 32, progress=False)


def test_same_content_is_decoded_once_and_a_changed_picture_again(folder, own_cache, monkeypatch):
    first = pixels.open_pictures(faces.read(folder), 32, progress=False)
    monkeypatch.setattr(pixels, "decode", lambda *a: pytest.fail("decoded again"))
    again = pixels.open_pictures(faces.read(folder), 32, progress=False)
    assert (again.pixels == first.pixels).all() and again.key == first.key
    monkeypatch.undo()
    monkeypatch.setenv("AGEGENDER_CACHE", str(own_cache))
    name = folder / first.faces.table["file"][5]
    name.write_bytes(picture(999))
    changed = pixels.open_pictures(faces.read(folder), 32, progress=False)
    assert changed.key != first.key
    assert (changed.pixels[5] != first.pixels[5]).any() and (changed.pixels[6] == first.pixels[6]).all()


def test_a_build_broken_off_leaves_nothing_that_is_trusted(folder, own_cache, monkeypatch):
    decode, calls = pixels.decode, []

    def dies(data, size):
        calls.append(1)
        if len(calls) > 100:
            raise KeyboardInterrupt
        return decode(data, size)

    monkeypatch.setattr(pixels, "decode", dies)
    with pytest.raises(KeyboardInterrupt):
        pixels.open_pictures(faces.read(folder), 32, workers=1, progress=False)
    monkeypatch.setattr(pixels, "decode", decode)
    opened = pixels.open_pictures(faces.read(folder), 32, progress=False)
    assert opened.pixels.reshape(150, -1).any(axis=1).all()


def test_rotation_grey_and_shape_are_handled():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    wide = picture(3, (120, 60), exif=exif)
    array, _, (width, height) = pixels.decode(wide, 32)
    assert (width, height) == (60, 120) and array.shape == (32, 32, 3)
    buffer = io.BytesIO()
    Image.new("L", (48, 48), 77).save(buffer, "PNG")
    array, thumb, _ = pixels.decode(buffer.getvalue(), 32)
    assert (array == 77).all() and (thumb == 77).all()


def test_size_is_checked(folder, own_cache):
    with pytest.raises(ValueError, match="size=4"):
        pixels.open_pictures(faces.read(folder), 4)


def test_real_faces_are_all_read(utkface_5000, own_cache):
    found = faces.read(utkface_5000, limit=300)
    opened = pixels.open_pictures(found, 128, progress=False)
    assert opened.faces.counts()["set_aside"] == 0
    with Image.open(utkface_5000 / opened.faces.table["file"][17]) as image:
        assert (opened.pixels[17] == np.asarray(image)).all()  # 128 px already: as it is

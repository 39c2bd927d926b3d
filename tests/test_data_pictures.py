"""Pictures as data: found, opened whatever they were saved as, and passed over when they cannot be read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from intarsia.data import ImageQuestion, ImageText, Text, dedup, gallery, load_data, open_picture, read
from intarsia.data.pictures import GREY, Unreadable
from intarsia.errors import BadInput, Note


def square(path: Path, colour=(200, 30, 40), size=(12, 8), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tiff"])
def test_every_format_gives_rgb(tmp_path: Path, suffix: str) -> None:
    picture = open_picture(square(tmp_path / f"a.{suffix}"))
    assert picture.mode == "RGB" and picture.size == (12, 8)
    assert np.abs(np.asarray(picture, float) - (200, 30, 40)).max() <= 6
    assert open_picture((tmp_path / f"a.{suffix}").read_bytes()).tobytes() == picture.tobytes()
    assert open_picture(picture).tobytes() == picture.tobytes()


def test_transparent_parts_show_light_grey(tmp_path: Path) -> None:
    half = open_picture(square(tmp_path / "half.png", (255, 0, 0, 128), mode="RGBA")).getpixel((0, 0))
    assert half == pytest.approx((128 / 255 * 255 + 127 / 255 * GREY, 127 / 255 * GREY, 127 / 255 * GREY), abs=1)
    assert open_picture(square(tmp_path / "none.png", (9, 9, 9, 0), mode="RGBA")).getpixel((0, 0)) == (GREY,) * 3
    assert open_picture(square(tmp_path / "la.png", (10, 0), mode="LA")).getpixel((0, 0)) == (GREY,) * 3
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.save(tmp_path / "p.png", transparency=1)
    assert open_picture(tmp_path / "p.png").getpixel((0, 0)) == (GREY,) * 3


def test_grey_sixteen_bit_cmyk_and_float(tmp_path: Path) -> None:
    assert open_picture(square(tmp_path / "l.png", 77, mode="L")).getpixel((1, 1)) == (77,) * 3
    assert open_picture(square(tmp_path / "one.png", 1, mode="1")).getpixel((1, 1)) == (255,) * 3
    Image.fromarray(np.full((5, 6), 40000, np.uint16)).save(tmp_path / "i16.png")
    assert open_picture(tmp_path / "i16.png").getpixel((0, 0)) == pytest.approx((40000 / 257,) * 3, abs=1)
    Image.fromarray(np.array([[0.0, 0.5], [1.0, 0.25]], np.float32)).save(tmp_path / "f.tiff")
    assert [open_picture(tmp_path / "f.tiff").getpixel(at)[0] for at in ((0, 0), (0, 1))] == [0, 255]
    cmyk = open_picture(square(tmp_path / "c.jpg", (0, 255, 255, 0), mode="CMYK")).getpixel((0, 0))
    assert cmyk[0] > 230 and cmyk[1] < 30


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (12, 8), (0, 0, 0))
    picture.putpixel((0, 0), (255, 255, 255))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    picture.save(tmp_path / "a.png", exif=exif)
    upright = open_picture(tmp_path / "a.png")
    assert upright.size == (8, 12) and upright.getpixel((7, 0)) == (255, 255, 255)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_picture(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def test_a_folder_in_natural_order_with_labels_from_folders(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "B.jpg", ".hidden.png", "sub/1.png"):
        square(tmp_path / "flat" / name)
    (tmp_path / "flat" / "note.txt").write_text("x")
    found = read(tmp_path / "flat")
    assert [Path(r.image).name for r in found] == ["2.png", "10.png", "B.jpg", "1.png"]
    assert {r.label for r in found} == {None} and isinstance(found[0], ImageText)
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        square(tmp_path / "kinds" / name)
    assert [r.label for r in read(tmp_path / "kinds")] == ["cat", "dog", "dog"]
    assert [r.label for r in load_data(tmp_path / "kinds")["images"]] == ["cat", "dog", "dog"]
    assert read(tmp_path / "kinds", limit=1) == read(tmp_path / "kinds")[:1]
    assert read(tmp_path / "kinds/cat/1.png") == [ImageText(str(tmp_path / "kinds/cat/1.png"))]


def test_files_that_name_pictures(tmp_path: Path) -> None:
    square(tmp_path / "pictures/a.png")
    rows = [{"file_name": "pictures/a.png", "caption": "a red box", "label": 3}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path / "c.jsonl") == [ImageText(str(tmp_path / "pictures/a.png"), "a red box", "3")]
    (tmp_path / "q.csv").write_text("image,question,answer\npictures/a.png,how many?,2\npictures/a.png,which?,\n")
    asked = read(tmp_path / "q.csv")
    assert asked == [
        ImageQuestion(str(tmp_path / "pictures/a.png"), "how many?", "2"),
        ImageQuestion(str(tmp_path / "pictures/a.png"), "which?", ""),
    ]
    assert len(dedup([*asked, *asked])) == 2
    answers = [{"image": "pictures/a.png", "question": "?", "answer": True}]
    (tmp_path / "b.json").write_text(json.dumps(answers))
    assert read(tmp_path / "b.json")[0].answer == "yes"
    (tmp_path / "pictures/metadata.csv").write_text("file_name,text\na.png,one\n")
    assert load_data(tmp_path / "pictures")["images"] == [ImageText(str(tmp_path / "pictures/a.png"), "one")]


def test_a_path_beside_a_text_is_a_picture_only_when_it_ends_like_one(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"path": "src/a.py", "text": "def f"}))
    assert read(tmp_path / "t.jsonl") == [Text("def f")]
    (tmp_path / "p.jsonl").write_text(json.dumps({"path": "a.png", "text": "a box"}))
    assert read(tmp_path / "p.jsonl") == [ImageText(str(tmp_path / "a.png"), "a box")]


def test_broken_pictures_are_passed_over_and_counted(tmp_path: Path) -> None:
    square(tmp_path / "1.png")
    whole = square(tmp_path / "2.png", size=(64, 64)).read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.jpg").write_bytes(b"not a picture")
    (tmp_path / "4.png").write_bytes(b"")
    records = [*read(tmp_path), ImageText(str(tmp_path / "gone.png"))]
    shown = gallery(records)
    assert [place for place, _, _ in shown] == [0] and sorted(shown.skipped) == [1, 2, 3, 4]
    with pytest.warns(Note, match="4 of 5 pictures cannot be read and were left out; the first: .*2.png"):
        shown.tell()
    bad = gallery(records[1:])
    assert list(bad) == []
    with pytest.raises(BadInput, match=r"none of 4 pictures can be read; the first: .*2\.png"):
        bad.tell()
    fine = gallery(records[:1])
    list(fine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine.tell()


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe0" + b"x" * 99])
def test_broken_bytes_are_one_clear_error(data: bytes) -> None:
    with pytest.raises(Unreadable, match="the picture: not a picture that can be read") as error:
        open_picture(data)
    assert "\n" not in str(error.value)


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    square(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(Unreadable, match="too many pixels, over 80"):
        open_picture(tmp_path / "a.png")


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="without pictures"):
        read(tmp_path)
    with pytest.raises(BadInput, match="no such picture"):
        open_picture(tmp_path / "x.png")
    with pytest.raises(BadInput, match="is a folder, a picture is wanted"):
        open_picture(tmp_path)
    with pytest.raises(BadInput, match="no pictures given"):
        gallery([])
    with pytest.raises(BadInput, match="given a Text"):
        gallery([Text("a")])
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "a.png", "text": [1]}))
    with pytest.raises(BadInput, match=r"line 1: 'text' must be a text, is a list"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "", "text": "x"}))
    with pytest.raises(BadInput, match="'image' is empty"):
        read(tmp_path / "a.jsonl")


def test_the_hash_of_data_is_of_the_pictures_not_of_their_places(tmp_path: Path) -> None:
    one, two = square(tmp_path / "a/1.png"), square(tmp_path / "b/1.png")
    assert load_data(tmp_path / "a").sha256 == load_data(tmp_path / "b").sha256
    square(two, (0, 0, 0))
    assert load_data(tmp_path / "a").sha256 != load_data(tmp_path / "b").sha256
    one.unlink()
    assert load_data({"images": two}).sha256 == load_data(tmp_path / "b").sha256

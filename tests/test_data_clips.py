"""Clips: every format, upright, cut where scenes change and nowhere else, and read as far as they can be."""

from __future__ import annotations

import io
import math
import socket
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from intarsia.data import load_data, read
from intarsia.data.clips import clips_in, open_clip
from intarsia.data.film import Film, upright
from intarsia.data.pictures import GREY, Unreadable
from intarsia.data.scenes import HEIGHT, LEVELS, REACH, WIDTH, Scene, SceneFinder, difference, moments
from intarsia.errors import BadInput, MissingExtra
from tests.clips_help import FORMATS, film, quarters, scenery, scenes


def near(picture: Image.Image, wanted: np.ndarray, within: float = 12.0) -> bool:
    got = np.asarray(picture).astype(float)
    return got.shape == wanted.shape and float(np.abs(got - wanted).mean()) < within


def starts(clip) -> list[float]:
    return [round(scene.start, 3) for scene in clip.scenes]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_its_scenes_and_the_frames_of_their_middles(name: str, tmp_path: Path) -> None:
    path = film(tmp_path / name, scenes([8, 12, 10], seed=3))
    clip = open_clip(path, frames=4)
    assert starts(clip) == [0.0, 0.8, 2.0] and clip.seconds == pytest.approx(3.0, abs=0.02)
    assert [round(t, 2) for t in clip.times] == pytest.approx([0.4, 1.1, 1.7, 2.5], abs=0.11)
    shown = [3, 4, 4, 5]
    within = 30 if name.endswith("gif") else 12  # 256 colours
    assert all(near(p, scenery(seed), within) for p, seed in zip(clip.pictures, shown, strict=True))
    assert not clip.sound and not clip.trouble and clip.path == str(path)


@pytest.mark.parametrize(("height", "width"), [(45, 67), (17, 16), (120, 30)])
def test_odd_sizes_are_kept_and_large_ones_made_smaller(height: int, width: int, tmp_path: Path) -> None:
    path = film(tmp_path / "odd.mov", [quarters(height, width)] * 5, kind="h264.mov")
    assert open_clip(path, frames=1).pictures[0].size == (width, height)
    small = open_clip(path, frames=1, side=16).pictures[0]
    assert max(small.size) == 16
    assert small.size == (
        max(1, round(width * 16 / max(width, height))),
        max(1, round(height * 16 / max(width, height))),
    )


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("name", ["turned.mp4", "turned.mov"])
def test_a_clip_is_turned_and_mirrored_as_its_file_says(
    rotation: int, mirrored: bool, name: str, tmp_path: Path
) -> None:
    path = film(tmp_path / name, [quarters()] * 3, rotation=rotation, mirrored=mirrored)
    wanted = Image.fromarray(quarters()).rotate(rotation, expand=True)
    if mirrored:
        wanted = wanted.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert near(open_clip(path, frames=1).pictures[0], np.asarray(wanted))


@given(st.integers(0, 3), st.booleans(), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_turning_is_the_map_of_places_that_the_matrix_says(turns: int, mirror: bool, height: int, width: int) -> None:
    values = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    angle = math.pi / 2 * turns
    flip = -1 if mirror else 1
    # x' = a x + c y, y' = b x + d y, in pixels whose y points down
    a, b, c, d = (
        round(v * 65536) for v in (flip * math.cos(angle), -math.sin(angle), flip * math.sin(angle), math.cos(angle))
    )
    spots = {
        (round((a * x + c * y) / 65536), round((b * x + d * y) / 65536)): values[y, x]
        for y in range(height)
        for x in range(width)
    }
    left, top = min(x for x, _ in spots), min(y for _, y in spots)
    got = upright(values, (a, b, c, d))
    assert got.shape[:2] == ((height, width) if turns % 2 == 0 else (width, height))
    for (x, y), value in spots.items():
        assert (got[y - top, x - left] == value).all()


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = film(tmp_path / "wide.mkv", [quarters(48, 64)] * 3, kind="mpeg4.mkv", pixel=Fraction(3, 2))
    assert open_clip(path, frames=1).pictures[0].size == (96, 48)


def test_transparent_parts_of_a_gif_show_light_grey(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 16, 32))
    clear.save(tmp_path / "clear.gif", save_all=True, append_images=[clear.copy()], duration=100, disposal=2)
    picture = np.asarray(open_clip(tmp_path / "clear.gif", frames=1).pictures[0])
    assert picture[16, 4].tolist() == pytest.approx([255, 0, 0], abs=4)
    assert picture[16, 28].tolist() == pytest.approx([GREY] * 3, abs=2)


def test_one_frame_and_few_frames_are_enough(tmp_path: Path) -> None:
    one = open_clip(film(tmp_path / "one.mp4", [scenery(1)]), frames=6)
    assert len(one.pictures) == len(one.times) == 1 and one.times == [0.0] and len(one.scenes) == 1
    assert near(one.pictures[0], scenery(1))
    three = open_clip(film(tmp_path / "three.mp4", [scenery(i) for i in range(3)]), frames=6)
    assert len(three.pictures) == 3 and three.times == sorted(set(three.times))


def test_frames_of_unequal_length_count_by_their_times(tmp_path: Path) -> None:
    # a still of 4 s as two frames, then a second of 20
    times = [0.0, 3.9, *(4 + i * 0.05 for i in range(20))]
    pictures = [scenery(1), scenery(1), *(scenery(2) for _ in range(20))]
    path = film(tmp_path / "uneven.mkv", pictures, kind="mpeg4.mkv", times=times)
    clip = open_clip(path, frames=4)
    assert starts(clip) == [0.0, 4.0] and 4.95 <= clip.seconds <= 5.2
    assert sum(t < 4 for t in clip.times) == 2  # it has no more frames than these
    assert near(clip.pictures[0], scenery(1)) and near(clip.pictures[-1], scenery(2))
    assert clip.times[-1] == pytest.approx(4.5, abs=0.06)


def test_a_stretch_is_the_whole_cut_down(tmp_path: Path) -> None:
    path = film(tmp_path / "long.mp4", scenes([30, 40, 30, 20]), options={"g": "25"})
    whole = {round(time, 3): np.asarray(frame.to_image()) for frame, time in Film(path)}
    for start, end in ((0.0, 2.0), (1.0, 5.0), (4.5, 9.0), (7.25, 7.85), (11.0, 99.0)):
        part = {round(time, 3): np.asarray(frame.to_image()) for frame, time in Film(path, start, end)}
        assert list(part) == [t for t in whole if start <= t < end]
        assert all((part[t] == whole[t]).all() for t in part)
    clip = open_clip(path, frames=3, start=2.0, end=8.0)
    assert starts(clip) == [2.0, 3.0, 7.0] and clip.seconds == pytest.approx(6.0)
    assert [near(p, scenery(i)) for i, p in enumerate(clip.pictures)] == [True] * 3 and not clip.trouble
    with pytest.raises(Unreadable, match=r"no frame from 50 s to its end"):
        open_clip(path, start=50)


def test_without_times_in_the_file_frames_are_counted(tmp_path: Path) -> None:
    path = film(tmp_path / "bare.h264", scenes([30, 30]), kind="h264.mp4", format="h264")
    clip = open_clip(path, frames=2)
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].guessed_rate)  # a raw stream names none: what FFmpeg takes it for
    assert clip.seconds == pytest.approx(60 / rate, rel=0.05)
    assert near(clip.pictures[0], scenery(0)) and near(clip.pictures[1], scenery(1))
    again = open_clip(path, frames=1, start=clip.seconds * 0.8)
    assert near(again.pictures[0], scenery(1))


# Broken files -----------------------------------------------------------------------------------------------------


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


NOISY = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(40)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mp4", {"movflags": "faststart"}),  # its table of contents in front, as players like it
        ("vp9.webm", {}),
        ("mpeg4.mkv", {}),
        ("mpeg4.avi", {}),
        ("h264.mpg.m2ts", {}),
    ],
)
def test_a_clip_that_breaks_off_gives_what_is_left_and_says_so(name: str, options: dict, tmp_path: Path) -> None:
    path = film(tmp_path / name, NOISY, container_options=options)
    whole = open_clip(path, frames=4)
    clip = open_clip(cut(path, 0.55), frames=4)
    assert 1 <= len(clip.pictures) <= 4 and clip.seconds < 0.8 * whole.seconds
    if name not in ("mpeg4.avi", "h264.mpg.m2ts"):  # their readers go by what is there
        assert "breaks off at" in clip.trouble and "of 4.0 s" in clip.trouble


def test_damage_in_the_middle_is_stepped_over(tmp_path: Path) -> None:
    path = film(tmp_path / "mpeg4.mkv", scenes([20, 20, 20]), options={"g": "5"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    clip = open_clip(path, frames=3)
    assert clip.seconds > 4 and near(clip.pictures[0], scenery(0)) and near(clip.pictures[-1], scenery(2))


def cover(path: Path) -> Path:
    """A sound with a picture of an album."""
    image = io.BytesIO()
    Image.fromarray(scenery(1)).save(image, "PNG")
    with av.open(str(path), "w") as out:
        voice = out.add_stream("mp3", rate=16000)
        still = out.add_stream("png", rate=1)
        still.width, still.height, still.pix_fmt = 64, 48, "rgb24"
        still.disposition = av.stream.Disposition.attached_pic
        out.mux(still.encode(av.VideoFrame.from_ndarray(scenery(1), format="rgb24")))
        out.mux(still.encode())
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        heard.sample_rate = 16000
        out.mux(voice.encode(heard))
        out.mux(voice.encode())
    return path


def wave(path: Path) -> Path:
    import wave

    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(16000))
    return path


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("gone.mp4", None, "no such clip"),
        ("folder.mp4", lambda p: p.mkdir(), "is a folder"),
        ("empty.mp4", lambda p: p.touch(), "the file is empty"),
        ("text.mp4", lambda p: p.write_text("no film " * 99), "not a clip that can be read"),
        ("headless.mp4", lambda p: cut(film(p, NOISY), 0.5), "not a clip that can be read"),
        ("voice.wav", wave, "sound without pictures"),
        ("song.mp3", cover, "sound without pictures"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_line(name: str, make, why: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if make is not None:
        make(path)
    with pytest.raises(Unreadable, match=why) as error:
        open_clip(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_playlist_dressed_as_a_clip_fetches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        for name in ("list.mp4", "list.m3u8"):
            (tmp_path / name).write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n")
            with pytest.raises(Unreadable):
                open_clip(tmp_path / name)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ({"frames": 0}, "frames: at least 1 wanted, given: 0"),
        ({"side": 4}, "side: at least 16"),
        ({"start": math.nan}, "0 <= start < end"),
        ({"start": -1.0}, "0 <= start < end"),
        ({"start": 3.0, "end": 3.0}, "0 <= start < end"),
    ],
)
def test_settings_are_checked(given_: dict, why: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=why):
        open_clip(tmp_path / "any.mp4", **given_)


def test_sound_is_noticed_and_left_alone(tmp_path: Path) -> None:
    path = film(tmp_path / "loud.mp4", scenes([10, 10]), sound=4.0)
    clip = open_clip(path, frames=2)
    # the sound goes on for longer than the film, which is no damage
    assert clip.sound and not clip.trouble and clip.seconds == pytest.approx(2.0)


# Scenes -----------------------------------------------------------------------------------------------------------


def yuv(picture: np.ndarray) -> np.ndarray:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(WIDTH, HEIGHT, "yuv444p", interpolation="AREA").to_ndarray()


def found(pictures: list[np.ndarray], rate: float = 10.0) -> list[float]:
    """Times of the cuts."""
    finder = SceneFinder()
    for i, picture in enumerate(pictures):
        finder.see(i / rate, yuv(picture))
    return [round(s.start, 3) for s in finder.scenes(len(pictures) / rate)[1:]]


def big(seed: int, **size: int) -> np.ndarray:
    return scenery(seed, 108, 192, **size)


def test_hard_cuts_are_found_where_they_are() -> None:
    assert found(scenes([12, 5, 20, 9, 30], height=108, width=192)) == [1.2, 1.7, 3.7, 4.6]


def test_cuts_between_shots_in_the_same_colours_are_found() -> None:
    one = big(5)
    assert found([one] * 15 + [one[:, ::-1]] * 15) == [1.5]


def test_neither_noise_nor_a_moving_thing_nor_a_slow_pan_is_a_cut() -> None:
    rng = np.random.default_rng(0)
    still = big(1)
    noisy = [np.clip(still + rng.normal(0, 12, still.shape), 0, 255).astype(np.uint8) for _ in range(40)]
    moving = []
    for i in range(40):
        picture = still.copy()
        picture[30:70, 3 * i : 3 * i + 40] = (255, 0, 0)
        moving.append(picture)
    wide = scenery(2, 108, 600, dots=30)
    pan = [wide[:, 8 * i : 8 * i + 192] for i in range(40)]
    shaking = [wide[:, (x := int(rng.integers(0, 40))) : x + 192] for _ in range(40)]
    assert [found(p) for p in (noisy, moving, pan, shaking)] == [[], [], [], []]


def test_a_cut_out_of_a_fast_pan_is_found_all_the_same() -> None:
    wide = scenery(2, 108, 900, dots=40)
    pan = [wide[:, 6 * i : 6 * i + 192] for i in range(30)]
    assert found(pan + [big(7)] * 20) == [3.0]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(length: int) -> None:
    still = big(1)
    flash = np.full_like(still, 250)
    assert found([still] * 15 + [flash] * length + [still] * 15) == []


@pytest.mark.parametrize("length", [5, 8, 12])
def test_a_dissolve_is_one_change(length: int) -> None:
    one, two = big(1).astype(float), big(2).astype(float)
    mixed = [(one * (1 - t) + two * t).astype(np.uint8) for t in np.linspace(0, 1, length + 2)[1:-1]]
    cuts = found([big(1)] * 30 + mixed + [big(2)] * 30)
    assert len(cuts) == 1 and abs(cuts[0] - (3 + length / 20)) <= 0.6


@pytest.mark.parametrize("rate", [5, 24, 30, 50])
def test_scenes_tile_the_clip_and_its_rate_does_not_matter(rate: int, tmp_path: Path) -> None:
    path = film(tmp_path / "fast.mp4", scenes([round(0.8 * rate), round(1.2 * rate), rate]), rate=rate)
    clip = open_clip(path, frames=3)
    assert [round(s.start, 1) for s in clip.scenes] == pytest.approx([0.0, 0.8, 2.0], abs=max(0.1, 1 / rate))
    assert clip.scenes[-1].end == pytest.approx(3.0)
    assert all(a.end == b.start for a, b in pairwise(clip.scenes))


def test_memory_does_not_grow_with_the_clip() -> None:
    finder, picture = SceneFinder(), yuv(big(1))
    most = 0
    for i in range(100):
        finder.see(i / 10, picture)
        most = max(most, len(finder._last))
    assert most <= REACH and max(map(len, finder._back)) <= REACH and len(finder.scenes(10.0)) == 1


def test_the_difference_is_the_naive_formula() -> None:
    rng = np.random.default_rng(4)
    one, two = (rng.integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8) for _ in range(2))
    two[:, : HEIGHT // 2] = one[:, : HEIGHT // 2]

    def colours(picture: np.ndarray) -> np.ndarray:
        out = np.zeros((LEVELS,) * 3)
        for y in range(HEIGHT):
            for x in range(WIDTH):
                at = [float(v) * (LEVELS - 1) / 255 for v in picture[:, y, x]]
                for corner in np.ndindex(2, 2, 2):
                    weight, place = 1.0, []
                    for value, up in zip(at, corner, strict=True):
                        low = min(int(value), LEVELS - 2)
                        weight *= value - low if up else 1 - (value - low)
                        place.append(low + up)
                    out[tuple(place)] += weight
        return out / out.sum()

    def places(picture: np.ndarray) -> np.ndarray:
        out = np.zeros((3, HEIGHT // 2, WIDTH // 2))
        for channel, y, x in np.ndindex(*out.shape):
            out[channel, y, x] = picture[channel, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(float).mean() / 255
        return out

    apart = min(1.0, 4 * np.abs(places(one) - places(two)).sum(0).mean())
    wanted = (1 - np.minimum(colours(one), colours(two)).sum() + apart) / 2
    assert difference(one, two) == pytest.approx(wanted, rel=1e-5)
    assert difference(one, one) == pytest.approx(0, abs=1e-9) and difference(one, two) == difference(two, one)


@given(st.lists(st.floats(0.4, 30), min_size=1, max_size=12), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_moments_are_middles_spread_over_the_scenes(lengths: list[float], count: int) -> None:
    edges = np.concatenate([[0.0], np.cumsum(lengths)])
    made = [Scene(float(a), float(b)) for a, b in pairwise(edges)]
    chosen = moments(made, count)
    assert len(chosen) == count
    times = [time for _, time in chosen]
    assert times == sorted(times) and all(scene.start < time < scene.end for scene, time in chosen)
    shares = [sum(scene is s for scene, _ in chosen) for s in made]
    if len(made) <= count:
        assert min(shares) >= 1
        # no frame would be better used elsewhere: no scene's parts are longer than another's before its last one
        spare = [s.seconds / (n - 1) for s, n in zip(made, shares, strict=True) if n > 1]
        assert (
            max(s.seconds / (n + 1) for s, n in zip(made, shares, strict=True)) <= min(spare, default=math.inf) + 1e-9
        )
    else:
        whole = edges[-1]
        for part in range(count):  # each part of the clip is shown by the scene in its middle
            assert any(s.start <= whole * (part + 0.5) / count <= s.end + 1e-9 for s, _ in chosen)
    for scene, share in zip(made, shares, strict=True):
        mine = [time for s, time in chosen if s is scene]
        assert mine == pytest.approx([scene.start + scene.seconds * (k + 0.5) / share for k in range(share)])


def test_there_are_no_moments_of_nothing() -> None:
    assert moments([], 4) == [] and moments([Scene(0, 1)], 0) == []
    assert moments([Scene(0.0, 0.0)], 2) == [(Scene(0.0, 0.0), 0.0)] * 2


# Folders ----------------------------------------------------------------------------------------------------------


def test_the_clips_of_a_folder_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("10.mp4", "2.MP4", "b/1.webm", ".hidden/3.mp4", ".4.mp4", "notes.txt", "cover.jpeg"):
        (tmp_path / name).touch()
    names = [Path(turn.clip).relative_to(tmp_path).as_posix() for turn in clips_in(tmp_path)]
    assert names == ["2.MP4", "10.mp4", "b/1.webm"]
    assert all(turn.text == turn.label == turn.about == "" for turn in clips_in(tmp_path))
    with pytest.raises(BadInput, match=r"no clips in it; known: \.mp4"):
        clips_in(tmp_path / ".hidden" / "x")


def test_a_folder_of_clips_and_a_single_one_are_read_as_turns_without_words(tmp_path: Path) -> None:
    for name in ("2.mp4", "1.mkv"):
        (tmp_path / name).touch()
    assert read(tmp_path) == clips_in(tmp_path) and read(tmp_path, limit=1) == clips_in(tmp_path)[:1]
    assert read(tmp_path / "2.mp4") == [clips_in(tmp_path)[1]]
    with pytest.raises(BadInput, match="is a folder without pictures"):
        read(tmp_path, "image")
    assert load_data(tmp_path).splits == {"clips": clips_in(tmp_path)}
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    assert list(load_data(tmp_path)) == ["train"]


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4", [scenery(1)])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"reading clips needs the extra 'video': pip install 'intarsia\[video\]'"):
        open_clip(path)

"""Pictures with their patches in groups: colours, letters, the page and the terminal."""

from __future__ import annotations

import base64
import io
import random
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import Field

from intarsia.report import Finding, PatchMap, PatchPanel, data_uri, render_finding, to_text
from intarsia.report.patches import colours, describe, draw_patches, letters, merged


class Patched(Finding):
    content: list[PatchMap] = Field(default_factory=list)

    def blocks(self):
        return self.content


def quarters() -> PatchPanel:
    """4 x 4: A is the left half; B two patches apart; one left out; the rest alone."""
    return PatchPanel(name="after layer 1", groups=[0, 0, 5, 2, 0, 0, 3, -1, 0, 0, 4, 5, 0, 0, 6, 7])


def finding(picture: str = "") -> Patched:
    block = PatchMap(title="cat.png", picture=picture, rows=4, columns=4, panels=[quarters(), quarters()], note="why")
    return Patched(title="Patches", content=[block])


def test_groups_letters_and_words() -> None:
    panel = quarters()
    assert merged(panel) == {0: [0, 1, 4, 5, 8, 9, 12, 13], 5: [2, 11]}
    assert letters(panel) == {0: "A", 5: "B"}
    assert describe(panel) == "7 of 16 left; 2 groups of two and more, the largest of 8 patches; 1 left out"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
def test_groups_of_blocks_that_touch_differ_in_colour(seed: int, rows: int, columns: int) -> None:
    """Groups of 2 x 2 patches (at most eight neighbours, four that were coloured before): six colours are enough."""
    groups = [(r // 2) * 100 + c // 2 for r in range(rows) for c in range(columns)]
    order = list(range(2000))
    random.Random(seed).shuffle(order)
    panel = PatchPanel(groups=[order[g] for g in groups])
    chosen = colours(panel, rows, columns)
    assert set(chosen) == set(merged(panel))
    for place, group in enumerate(panel.groups):
        for other in (place + 1 if (place + 1) % columns else None, place + columns):
            if other is not None and other < len(panel.groups) and panel.groups[other] != group:
                pair = [chosen.get(group), chosen.get(panel.groups[other])]
                assert None in pair or pair[0] != pair[1]


def test_the_drawing_is_whole_and_holds_the_picture_once() -> None:
    uri = data_uri(Image.new("RGB", (64, 64), (200, 30, 30)))
    page = render_finding(finding(uri))
    assert page.count(uri) == 1 and page.count("<use ") == 2
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    for svg in re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL):
        tree = ET.fromstring(svg)
        kinds = [part.get("class") for part in tree]
        assert [k for k in kinds if k and k.startswith("tint")] == ["tint c0", "tint c1"]
        assert kinds.count("gone") == 1
        assert [part.text for part in tree if part.tag == "text"] == ["A", "B", "B"]  # B lies in two places
        path = next(part for part in tree if part.get("class") == "tint c0")
        assert path.get("d").count("M") == 8 and path[0].text == "A: 8 patches in one"


def test_outlines_stand_exactly_between_different_groups() -> None:
    panel = PatchPanel(groups=[0, 0, 1, 2])
    drawn = draw_patches(PatchMap(rows=2, columns=2, panels=[panel]))
    rim = re.search(r'class="rim" d="([^"]*)"', drawn).group(1)
    assert sorted(re.findall(r"M[^M]*", rim)) == ["M0.00 100.00h100.00", "M100.00 100.00h100.00"]


def test_text_has_letters_with_and_without_colour() -> None:
    text = to_text(finding())
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("A A B"))
    assert lines[at].split() == ["A", "A", "B", "·"] * 2 and lines[at + 1].split() == ["A", "A", "·", "x"] * 2
    assert "cat.png" in text and "letters: patches that are one row" in text and "why" in text
    narrow = to_text(finding(), width=20)
    assert max(map(len, narrow.splitlines())) <= 20 and narrow.count("A A B") == 2


def test_what_is_too_fine_is_said_in_words() -> None:
    panel = PatchPanel(name="end", groups=[0] * 2 + list(range(1, 99 * 60 - 1)))
    text = to_text(Patched(content=[PatchMap(rows=60, columns=99, panels=[panel])]))
    assert "5939 of 5940 left" in text and len(text.splitlines()) < 6


def test_data_uris_are_small_and_read_back() -> None:
    noise = Image.effect_noise((900, 700), 80).convert("RGB")
    uri = data_uri(noise)
    back = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert uri.startswith("data:image/jpeg") and max(back.size) == 336 and len(uri) < 250_000
    tiny = Image.new("RGBA", (16, 16), (1, 2, 3, 255))
    exact = Image.open(io.BytesIO(base64.b64decode(data_uri(tiny).partition(",")[2])))
    assert exact.convert("RGB").tobytes() == tiny.convert("RGB").tobytes()


def test_empty_hostile_and_json() -> None:
    assert "No patches" in render_finding(Patched(content=[PatchMap(rows=0, columns=0, panels=[])]))
    assert "no patches" in to_text(Patched(content=[PatchMap(rows=0, columns=0, panels=[])]))
    nasty = '"></svg><script>alert(1)</script>'
    block = PatchMap(title=nasty, picture=nasty, rows=1, columns=2, panels=[PatchPanel(name=nasty, groups=[0, 0])])
    page = render_finding(
        Patched(title="x", content=[block, block.model_copy(update={"picture": "data:image/" + nasty})])
    )
    assert "<script>alert" not in page
    assert Finding.from_json(finding("data:image/png;base64,AA").to_json()) == finding("data:image/png;base64,AA")


@pytest.mark.parametrize("groups", [[-1, -1], [3, 3], [0, 1]])
def test_all_gone_all_one_and_none_merged(groups: list[int]) -> None:
    block = PatchMap(rows=1, columns=2, panels=[PatchPanel(groups=groups)])
    drawn = draw_patches(block)
    assert drawn.count("tint") == (groups == [3, 3]) and drawn.count('"gone"') == groups.count(-1)
    assert to_text(Patched(content=[block]))

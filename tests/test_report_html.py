"""The page: self-contained, well formed, escaped, the same bytes each time, and honest about what is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.report import Column, Figure, Mark, RunPage, Section, Series, Table, TokenMap, render, render_finding
from intarsia.report.axes import Axis
from intarsia.report.change import change
from intarsia.report.charts import draw
from intarsia.report.drawing import CHARACTER, NARROW, WIDE
from intarsia.report.format import show_token
from intarsia.report.heatmap import Shade
from tests import gallery

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Reader(HTMLParser):
    """Checks that tags balance and collects tags, attributes and visible text."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"attribute given twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def page() -> str:
    return render(gallery.run_page())


def test_the_run_page_is_well_formed_and_complete(page):
    read = Reader(page)
    text = " ".join(" ".join(read.text).split())
    for part in (
        "At a glance",
        "Quality",
        "Model diff",
        "Cost",
        "Provenance",
        "Repeat this run",
        "intarsia run emotion.yaml",
    ):
        assert part in text
    assert "0.791" in text and "538 MB" in text and "KL from base to tuned" in text
    assert "compression.quantize: {bits: 8}" in text
    anchors = {attrs["id"] for _, attrs in read.tags if "id" in attrs}
    links = [attrs["href"] for tag, attrs in read.tags if tag == "a"]
    assert links and all(link[1:] in anchors for link in links)
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_elsewhere(page):
    read = Reader(page)
    for tag, attrs in read.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert "src" not in attrs and "srcset" not in attrs and "xlink:href" not in attrs
        assert not any(name.startswith("on") for name in attrs)
        if "href" in attrs:
            assert attrs["href"].startswith("#")
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|https?://", page)


def test_same_contents_same_bytes(page):
    code = "from tests import gallery; from intarsia.report import render; import sys, hashlib;"
    code += "print(hashlib.sha256(render(gallery.run_page()).encode()).hexdigest())"
    import hashlib

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(page.encode()).hexdigest()


def test_hostile_text_stays_text():
    finding = gallery.hostile()
    plain = Reader(render_finding(gallery.cost()))
    for page in (
        render_finding(finding),
        render(RunPage(title=finding.title, subtitle=finding.title, summary=finding.title, headline=finding.content[0],
                       sections=[Section(finding=finding)] * 2,
                       manifest={"command": finding.title, "recipe": finding.title, finding.title: [finding.title]})),
    ):  # fmt: skip
        read = Reader(page)
        assert read.count("script") == plain.count("script") == 1
        assert read.count("img") == 0
        assert "alert(1)" in "".join(read.text)
        page.encode("utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", page)


def test_the_headline_says_what_became_better_and_worse(page):
    read = Reader(page)
    kinds = [
        attrs["class"] for tag, attrs in read.tags if tag == "span" and attrs.get("class", "").startswith("change")
    ]
    assert kinds.count("change better") == 3 + 2 + 2 + 2
    assert kinds.count("change worse") == 1
    assert kinds.count("change same") == 1


@pytest.mark.parametrize(
    ("new", "old", "column", "text", "verdict"),
    [
        (50, 100, Column(name="size", better="lower"), "−50.0%", "better"),
        (400, 100, Column(name="speed", better="higher"), "4×", "better"),
        (0.9, 0.8, Column(name="F1", format=".2f", better="higher"), "+0.10", "better"),
        (0.7, 0.8, Column(name="share", format=".1%", better="higher"), "−10.0 points", "worse"),
        ((0.82, 0.7, 0.9), (0.8, 0.75, 0.85), Column(name="F1", format=".2f", better="higher"), "+0.02", "unclear"),
        ((0.9, 0.88, 0.92), (0.8, 0.75, 0.85), Column(name="F1", format=".2f", better="higher"), "+0.10", "better"),
        (7, 7, Column(name="layers", better="lower"), "no change", "same"),
        (8, 7, Column(name="layers"), "+14.3%", ""),
    ],
)
def test_changes(new, old, column, text, verdict):
    found = change(new, old, column)
    assert (found.text, found.verdict) == (text, verdict)


def test_nothing_to_compare_gives_no_change():
    column = Column(name="x", better="lower")
    assert change(None, 1, column) is None
    assert change(1, float("nan"), column) is None
    assert change("a", 1, column) is None


def test_missing_values_are_gaps_and_dashes():
    figure = Figure(
        title="f", kind="line", series=[Series(name="a", x=[0, 1, 2, 3, 4], y=[1, 2, None, float("nan"), 5])]
    )
    svg = draw(figure, WIDE)
    assert svg.count("<path") == 1 and svg.count("<circle") == 3  # one run of two points, one point alone
    page = render_finding(
        gallery.Gallery(title="t", content=[Table(columns=[Column(name="a")], rows=[[None], [float("nan")]])])
    )
    assert page.count(">–<") == 2
    assert "nan" not in "".join(Reader(page).text).lower()


@pytest.mark.parametrize(
    ("low", "high", "spec", "expected"),
    [
        (0, 12.5, "", ["0.0", "2.5", "5.0", "7.5", "10.0", "12.5"]),
        (0, 1, "", ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 0.5, ".0%", ["0%", "10%", "20%", "30%", "40%", "50%"]),
        (-2, 2, "", ["−2", "−1", "0", "1", "2"]),
        (0, 2e9, "bytes", ["0 B", "500 MB", "1.00 GB", "1.50 GB", "2.00 GB"]),
    ],
)
def test_axes_are_marked_with_round_numbers(low, high, spec, expected):
    ticks = Axis(low, high, 0, 100, spec).ticks(5)
    assert [words for _, words in ticks] == expected
    assert [value for value, _ in ticks] == pytest.approx(list(np.linspace(low, high, len(expected))))


def test_whole_numbers_are_marked_at_whole_numbers():
    assert [words for _, words in Axis(0, 3, 0, 100, whole=True).ticks(10)] == ["0", "1", "2", "3"]
    svg = draw(Figure(title="f", kind="line", series=[Series(name="a", x=[0, 1, 2, 3], y=[1, 2, 3, 4])]), WIDE)
    assert ">1.5<" not in svg.split("</desc>")[1]


@pytest.mark.parametrize("value", [-9007199254740996.0, 5e-324, 0.0, -1e-300, 1.7e308, -1.7e308])
@pytest.mark.parametrize("scale", ["sequential", "diverging"])
def test_one_value_is_a_range_too(value, scale):
    assert 0 <= Shade([value], scale).strength(value) <= 1
    Reader(draw(Figure(title="f", kind="line", series=[Series(name="a", x=[value], y=[value])]), WIDE))


def test_figures_that_did_not_move_get_no_chart():
    table = Table(
        columns=[Column(name="model"), Column(name="layers"), Column(name="size")], rows=[["a", 3, 1], ["b", 3, 2]]
    )
    page = render(RunPage(title="t", headline=table))
    assert Reader(page).text.count("layers") == 1 and Reader(page).text.count("size") > 1


def test_tokens_keep_their_breaks_and_tips():
    tokens = TokenMap(tokens=["a", "\n", " b"], values=[0.0, 1.0, None], tips=["", "why <so>", ""], format=".1f")
    page = render_finding(gallery.Gallery(title="t", content=[tokens]))
    spans = [attrs for tag, attrs in Reader(page).tags if tag == "span" and "title" in attrs]
    assert [span["title"] for span in spans] == ["a: 0.0", "↵: 1.0\nwhy <so>", "b: –"]
    assert spans[1]["class"] == "seq hi" and spans[2]["class"] == "none"
    assert "↵</span>\n<span" in page
    assert show_token("") == "∅"


def test_empty_findings_and_pages():
    assert "Nothing to show" in render_finding(gallery.Gallery())
    page = render(RunPage(title="nothing yet"))
    Reader(page)
    assert "Provenance" not in page
    empty = [
        Table(columns=[], rows=[]),
        Table(columns=[Column(name="a")], rows=[]),
        TokenMap(tokens=[], values=[]),
        *(Figure(title="none", kind=kind) for kind in ("line", "bar", "scatter", "heatmap")),
    ]
    Reader(render_finding(gallery.Gallery(title="t", content=empty)))


def test_a_recipe_may_be_text_or_what_was_read_from_it():
    for recipe in ("model: a\nsteps: []\n", {"model": "a", "steps": []}):
        assert "<pre>model: a\nsteps: []\n</pre>" in render(RunPage(title="t", manifest={"recipe": recipe}))


def test_sections_of_the_same_title_get_anchors_of_their_own():
    page = render(
        RunPage(title="t", sections=[Section(title="Provenance", finding=gallery.cost())] * 3, manifest={"seed": 0})
    )
    ids = [attrs["id"] for _, attrs in Reader(page).tags if "id" in attrs]
    assert {"provenance", "provenance-2", "provenance-3", "provenance-4"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_page_survives_json():
    from intarsia.report import Finding

    original = gallery.run_page()
    again = original.model_copy(
        update={
            "sections": [
                Section(title=s.title, finding=Finding.from_json(s.finding.to_json())) for s in original.sections
            ]
        }
    )
    assert render(again) == render(original)


def test_import_stays_light():
    code = (
        "import sys, intarsia.report; print([m for m in ('rich', 'jinja2', 'matplotlib', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


numbers = st.one_of(st.none(), st.floats(), st.floats(-10, 10), st.integers(-(10**12), 10**12).map(float))
words = st.text(max_size=12)


@st.composite
def figures(draw_from) -> Figure:
    kind = draw_from(st.sampled_from(["line", "bar", "scatter", "heatmap"]))
    if kind == "heatmap":
        matrix = draw_from(st.lists(st.lists(numbers, max_size=5), max_size=5))
        texts = draw_from(st.none() | st.lists(st.lists(words, max_size=5), max_size=5))
        names = draw_from(st.lists(words, max_size=6))
        scale = draw_from(st.sampled_from(["sequential", "diverging"]))
        return Figure(
            title="t", kind=kind, matrix=matrix, texts=texts, row_names=names, column_names=names, scale=scale
        )
    series = []
    named = draw_from(st.booleans())
    for _ in range(draw_from(st.integers(0, 3))):
        x = draw_from(st.lists(words if named else st.floats(), max_size=6))
        y = draw_from(st.lists(numbers, min_size=len(x), max_size=len(x)))
        low = draw_from(st.none() | st.lists(numbers, max_size=6))
        series.append(
            Series(name=draw_from(words), x=x, y=y, low=low, high=low, labels=draw_from(st.none() | st.just(["l"])))
        )
    spec = draw_from(st.sampled_from(["", ".2f", ".1%", "bytes", ",d", "nonsense"]))
    log_x, log_y = draw_from(st.booleans()), draw_from(st.booleans())
    return Figure(title="t", kind=kind, x="x", y="y", series=series, format=spec, log_x=log_x, log_y=log_y)


@settings(max_examples=80, deadline=None)
@given(figures())
def test_any_figure_draws(figure):
    for width in (WIDE, NARROW):
        svg = draw(figure, width)
        Reader(svg)
        assert not re.search(r'"-?(nan|inf)', svg)
    Reader(render_finding(gallery.Gallery(title="t", content=[figure])))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12), st.floats(0, 1))
def test_words_beside_marks_stand_apart(places, bound):
    """Each pair is a line apart or side by side; a mark whose words have no room keeps them in its tip."""
    x, y = [a for a, _ in places], [b for _, b in places]
    names = [f"point number {i}" for i in range(len(places))]
    series = Series(name="s", x=x, y=y, labels=names)
    figure = Figure(title="t", kind="scatter", series=[series], marks=[Mark(axis="x", value=bound, text="a bound")])
    svg = draw(figure, WIDE)
    found = re.findall(r'<text class="note" x="([-\d.]+)" y="([-\d.]+)"( text-anchor="end")?>([^<]+)<', svg)
    boxes = []
    for at, line, end, words in found:
        wide = CHARACTER * len(words)
        boxes.append((float(at) - wide if end else float(at), float(line), wide))
    for i, (a, line, wide) in enumerate(boxes):
        for b, other, wider in boxes[:i]:
            assert abs(line - other) > 12.8 or a + wide <= b + 0.2 or b + wider <= a + 0.2
    assert boxes and all(name in svg for name in names)


cells = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), words, st.tuples(st.floats(), st.floats(), st.floats())
)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5),
    formats=st.lists(st.sampled_from(["", ".3f", "bytes", ".1%", ",d", "}{"]), min_size=3, max_size=3),
    better=st.sampled_from(["higher", "lower", ""]),
)
def test_any_table_draws(rows, formats, better):
    table = Table(columns=[Column(name="c", format=spec, better=better) for spec in formats], rows=rows)
    Reader(render(RunPage(title="t", headline=table, sections=[Section(finding=gallery.Gallery(content=[table]))])))

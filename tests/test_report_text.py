"""Terminal text: fits its width, says the numbers, reads without colour."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from intarsia.report import Column, Figure, Series, Table, TokenMap, print_finding, to_text
from intarsia.report.format import interval, number, size
from tests import gallery
from tests.test_report_html import cells, figures

FINDINGS = {"quality": gallery.quality, "diff": gallery.diff, "cost": gallery.cost, "hostile": gallery.hostile}


@pytest.mark.parametrize("name", FINDINGS)
@pytest.mark.parametrize("width", [80, 50, 132])
def test_lines_fit(name, width):
    text = to_text(FINDINGS[name](), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text


def test_it_says_the_numbers():
    text = to_text(gallery.quality())
    assert "Quality by label" in text and "0.830" in text and "82.0%" in text and "±0.04" in text
    assert text == str(gallery.quality())


def test_columns_that_do_not_fit_move_below_with_the_first_again():
    table = Table(
        columns=[Column(name=f"column number {i}") for i in range(9)], rows=[[f"row {r}", *range(8)] for r in range(2)]
    )
    text = to_text(gallery.Gallery(title="wide", content=[table]))
    assert all(f"column number {i}" in text for i in range(9))
    assert text.count("row 0") == text.count("column number 0") > 1


def test_strong_tokens_stand_in_brackets_without_colour():
    tokens = TokenMap(tokens=["plain", " strong", "\n"], values=[0.0, 2.0, None], format=".1f")
    finding = gallery.Gallery(title="t", content=[tokens])
    assert "plain[ strong]↵" in to_text(finding)
    assert "'strong' 2.0" in to_text(finding)
    stream = io.StringIO()
    print_finding(finding, Console(file=stream, force_terminal=True, color_system="truecolor", width=80))
    assert "[ strong]" not in stream.getvalue() and "\x1b[" in stream.getvalue()


def test_a_gap_in_a_line_is_a_gap():
    figure = Figure(title="f", kind="line", series=[Series(name="a", x=[0, 1, 2], y=[0.0, math.nan, 1.0])])
    assert "▁ █" in to_text(gallery.Gallery(title="t", content=[figure]))


def test_empty_blocks_say_so():
    empty = [
        Table(columns=[], rows=[]),
        TokenMap(tokens=[], values=[]),
        *(Figure(title="none", kind=kind) for kind in ("line", "bar", "scatter", "heatmap")),
    ]
    text = to_text(gallery.Gallery(title="t", content=empty))
    assert text.count("no values") == 4 and "no rows" in text and "no tokens" in text
    assert to_text(gallery.Gallery()) == "Gallery"


@pytest.mark.parametrize(
    ("value", "spec", "expected"),
    [
        (None, ".3f", "–"),
        (math.nan, "", "–"),
        (math.inf, ".3f", "∞"),
        (0.12345, ".3f", "0.123"),
        (-2.5, ".1f", "−2.5"),
        (1234567, "", "1,234,567"),
        (3.0, ",d", "3"),
        (3.5, ",d", "3.5"),
        (0.5, ".1%", "50.0%"),
        ("word", ".3f", "word"),
        (True, "", "yes"),
        (538_090_408, "bytes", "538 MB"),
        (12.3456789, "", "12.35"),
        (1.5e-9, "", "1.5e-09"),
    ],
)
def test_numbers(value, spec, expected):
    assert number(value, spec) == expected


def test_sizes_and_intervals():
    assert [size(v) for v in (0, 999, 1000, 99_950, 1.5e9, 999_999)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "100 kB",
        "1.50 GB",
        "1.00 MB",
    ]
    assert interval(0.5, 0.4, 0.6, ".2f") == "±0.10"
    assert interval(0.5, 0.45, 0.6, ".2f") == "0.45–0.60"
    assert interval(0.0, -0.5, 2.0, ".1f") == "−0.5 to 2.0"
    assert interval(0.5, None, 0.6) == ""


@settings(max_examples=150, deadline=None)
@given(figures())
def test_any_figure_prints(figure):
    text = to_text(gallery.Gallery(title="t", content=[figure]))
    assert max(cell_len(line) for line in text.splitlines()) <= 80


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5))
def test_any_table_prints(rows):
    table = Table(columns=[Column(name="c", format=".2f")] * 3, rows=rows)
    text = to_text(gallery.Gallery(title="t", content=[table]))
    assert max(cell_len(line) for line in text.splitlines()) <= 80

"""Timelines: on the page and in the terminal, whatever stands in them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from pydantic import Field

from intarsia.report import Bar, Finding, Timeline, render_finding, to_text
from intarsia.report.timelines import draw_timeline, kinds, length, seconds


class Timed(Finding):
    content: list[Timeline] = Field(default_factory=list)

    def blocks(self):
        return self.content


BARS = [
    Bar(name="flow", kind="flow", start=5, seconds=4),
    Bar(name="model: generate", kind="model", depth=1, start=6, seconds=1, details=[("input", "<b>hi</b>")]),
    Bar(name="tool", kind="tool", depth=1, start=8, seconds=None, failed=True, note="ValueError: no"),
]


def test_bars_stand_where_and_as_wide_as_they_took():
    block = Timeline(bars=BARS)
    assert length(block) == 4 and kinds(block) == {"flow": 0, "model": 1, "tool": 2}
    html = draw_timeline(block)
    placed = re.findall(r'b(\d)" style="left:([\d.]+)%;width:([\d.]+)%', html)
    assert [(k, float(a), float(b)) for k, a, b in placed] == [("0", 0, 100), ("1", 25, 25), ("2", 75, 0.4)]
    assert "&lt;b&gt;hi&lt;/b&gt;" in html and html.count("<details>") == 1 and 'state bad">ValueError: no' in html


def test_the_terminal_shows_the_same():
    lines = to_text(Timed(title="t", content=[Timeline(title="When", bars=BARS)]), 80).splitlines()
    flow, model, tool = (next(line for line in lines if word in line) for word in ("flow ", "generate", "tool "))
    assert abs(flow.count("━") - 4 * model.count("━")) < 4
    assert model.index("━") > flow.index("━") and tool.count("━") == 1
    assert "4 s" in flow and "–" in tool and "    ValueError: no" in lines and max(map(len, lines)) <= 80


def test_nothing_and_hostile_names():
    assert "Nothing was done" in render_finding(Timed(title="t", content=[Timeline(bars=[])]))
    assert "nothing was done" in to_text(Timed(content=[Timeline(bars=[])]))
    nasty = '</ol><script>alert("x")</script>\x00\ud800'
    bars = [Bar(name=nasty, kind=nasty, start=0, seconds=0, note=nasty, details=[(nasty, nasty)])]
    page = render_finding(Timed(title="t", content=[Timeline(title=nasty, bars=bars, note=nasty)]))
    page.encode()
    seen = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append(tag)

    Tags().feed(page)
    assert seen.count("script") == 1  # the page's own
    to_text(Timed(content=[Timeline(bars=bars * 300)])).encode()


def test_many_lines_are_cut_in_the_terminal_and_said_to_be():
    assert "… and 50 more" in to_text(Timed(content=[Timeline(bars=BARS[:1] * 250)]))


def test_a_finding_with_a_timeline_is_read_again():
    finding = Timed(title="t", content=[Timeline(bars=BARS)])
    assert Finding.from_json(finding.to_json()) == finding


@pytest.mark.parametrize(
    ("value", "words"), [(0.0032, "3.2 ms"), (0.9994, "999 ms"), (1.25, "1.25 s"), (245, "4 min 5 s"), (None, "–")]
)
def test_lengths_of_time(value, words):
    assert seconds(value) == words

"""Web pages: readable text, headings with anchors, and nothing that a person would not see."""

import warnings

import pytest

from intarsia.data.documents import read_documents
from intarsia.data.documents.headings import Heading, markdown_headings, rst_headings, slug
from intarsia.data.documents.html import page_of, read_page
from intarsia.data.documents.invisible import without_comments, without_unseen
from intarsia.data.documents.unseen import unseen_style
from intarsia.errors import BadInput, MissingExtra

pytest.importorskip("selectolax")

PAGE = """<!DOCTYPE html><html><head><title>The  kettle
manual</title><script>var a = "script";</script><style>p { color: red }</style></head><body>
<nav><ul><li>Menu</li></ul></nav>
<header><h1 id="top">The <i>kettle</i><a class="headerlink" href="#top">¶</a></h1></header>
<p>It   boils <b>water</b>,<br>slowly &amp; well.</p>
<section id="safety"><h2>Safety</h2><ul><li>Hot</li><li>Wet <ul><li>very</li></ul></li></ul>
<ol start="3"><li>Fill<li>Boil</ol></section>
<h3><a name="code"></a>Code</h3><pre><code>if hot:
    stop()</code></pre>
<table><caption>Sizes</caption><tr><th>a</th><th>b|c</th></tr><tr><td>1</td><td>2 <b>x</b></td></tr></table>
<table><tr><td><h2 id="laid">Laid out</h2>by a table</td></tr></table>
<dl><dt id="kettle.boil">kettle.<b>boil</b>(water)</dt><dd><p>Boils it.</p></dd><dt id="k2">k2</dt><dd>Two.</dd></dl>
<p>After.</p><footer>Imprint</footer></body></html>"""
TEXT = """# The kettle

It boils water,
slowly & well.

## Safety

- Hot
- Wet
  - very
3. Fill
4. Boil

### Code

```
if hot:
    stop()
```

| a | b\\|c |
| --- | --- |
| 1 | 2 x |

## Laid out

by a table

kettle.boil(water)

Boils it.

k2

Two.

After."""


def test_a_page_as_text():
    page = page_of(PAGE)
    assert page.text.replace("Sizes", "").strip() == TEXT or page.text == TEXT
    assert page.title == "The kettle manual" and page.hidden == 0
    assert [(h.level, h.title, h.anchor) for h in page.headings] == [
        (1, "The kettle", "top"), (2, "Safety", "safety"), (3, "Code", "code"), (2, "Laid out", "laid"),
        (7, "kettle.boil(water)", "kettle.boil"), (7, "k2", "k2"), (7, "", ""),
    ]  # fmt: skip
    for heading in page.headings:
        line = page.text[heading.start :].partition("\n")[0]
        assert line.lstrip("# ") == heading.title if heading.title else line == "After."


@pytest.mark.parametrize(
    "hidden",
    [
        '<p style="display:none">SECRET</p>', "<p style='DISPLAY : NONE !important'>SECRET</p>",
        '<p style="visibility: hidden">SECRET</p>', '<p aria-hidden="true">SECRET</p>', "<p hidden>SECRET</p>",
        "<!-- SECRET -->", "<template><p>SECRET</p></template>", '<span style="font-size:0">SECRET</span>',
        '<span style="font-size: 0.0px;color:red">SECRET</span>', '<div style="opacity:0">SECRET</div>',
        '<div style="height:0px;overflow:hidden">SECRET</div>', '<div style="width:0">SECRET</div>',
        '<div style="position:absolute;left:-9999px">SECRET</div>', '<p style="text-indent:-5000em">SECRET</p>',
        '<p style="color:#fff;background:#ffffff">SECRET</p>',
        '<p style="color:white;background-color:#FFF">SECRET</p>',
        '<p style="color:transparent">SECRET</p>', '<p style="clip:rect(0,0,0,0)">SECRET</p>',
        '<p class="sr-only">SECRET</p>', '<div style="display:none"><div><b>SECRET</b></div></div>',
        "<style>.x{display:none}</style><p class=x>SECRET</p>",
        "<style>a,  #y > b {font-size:0} i{}</style><div id=y><b>SECRET</b></div>",
        "<style>/* .z{} */ .z { color: red; visibility:hidden }</style><p class='a z'>SECRET</p>",
        '<p style="dis/**/play:none">SECRET</p>', '<p style="transform: scale(0)">SECRET</p>',
        "".join(chr(0xE0000 + ord(c)) for c in "SECRET"),
    ],
)  # fmt: skip
def test_what_nobody_sees_is_left_out_and_counted(hidden):
    page = page_of(f"<h1>Seen</h1><p>Before.</p>{hidden}<p>After.</p>")
    assert page.text == "# Seen\n\nBefore.\n\nAfter." and page.hidden == 1


@pytest.mark.parametrize(
    "seen",
    [
        '<p style="display:block">seen</p>', '<p style="opacity:0.5">seen</p>', '<p style="font-size:10px">seen</p>',
        '<p style="height:10px">seen</p>', '<p style="line-height:0.9">seen</p>',
        '<p style="margin-left:-5px">seen</p>',
        '<p style="color:#000;background:#fff">seen</p>', '<p aria-hidden="false">seen</p>',
        '<p style="color:#f00">seen</p>',
        "<style>@media print {.x{display:none}} .y{display:none}</style><p class=x>seen</p>",
        "<style>.x:hover{display:none}</style><p class=x>seen</p>", '<p style="border-width:0">seen</p>',
        '<p style="width:0.5em">seen</p>', '<p style="min-height:0">seen</p>',
    ],
)  # fmt: skip
def test_what_is_seen_stays(seen):
    page = page_of(seen)
    assert page.text == "seen" and page.hidden == 0


@pytest.mark.parametrize("frame", ["<nav>x</nav>", "<script>x</script>", "<div role=navigation>x</div>",
                                   "<footer>x</footer>", "<noscript>x</noscript>", "<button>x</button>",
                                   "<svg><text>x</text></svg>",
                                   "<select><option>x</option></select>", "<iframe>x</iframe>"])  # fmt: skip
def test_what_frames_a_page_is_left_out(frame):
    page = page_of(f"<p>a</p>{frame}<p>b</p>")
    assert page.text == "a\n\nb" and page.hidden == 0


def test_signs_that_nobody_sees():
    assert without_unseen("a\u200bb\u202ec\ufeff") == ("abc", 3)
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    family = "👩\u200d👧 ❤\ufe0f می\u200cخواهم co\u00adop"
    assert without_unseen(flag + family) == (flag + family, 0)
    assert without_unseen("plain") == ("plain", 0)


def test_comments_of_markdown():
    text = "a <!-- b --> c\n\n```\n<!-- code -->\n```\n`<!-- in line -->`\n[//]: # (hidden)\nend <!-- open"
    assert without_comments(text) == ("a  c\n\n```\n<!-- code -->\n```\n`<!-- in line -->`\nend ", 3)
    assert without_comments("# no\n\ncomment") == ("# no\n\ncomment", 0)


@pytest.mark.parametrize(
    "broken",
    ["", "no tags at all", "<p>open", "</p></div></table>", "<table><td>x", "<table><tr><table><tr><td>x</table>",
    "<li>x",
     "<ol start='x'><li>x", "<h1></h1><p>x", "<td>x</td>", "<pre>x", "<dl><dt id=a>x", "\0<p>x", "<" * 100, "<!--",
     "<ul></ul>x",
     "<p>" * 3000 + "x", "<dt>x</dt>", "<h1><table><tr><td>x</table></h1>", "<table><tr><td><pre>x</pre></table>"],
)  # fmt: skip
def test_pages_that_are_no_good_html(broken):
    page = page_of(broken)
    assert "x" in page.text or "x" not in broken
    assert all(0 <= h.start <= len(page.text) for h in page.headings)
    assert [h.start for h in page.headings] == sorted(h.start for h in page.headings)


def test_encodings(tmp_path):
    path = tmp_path / "a.html"
    for raw in (
        "<p>café</p>".encode(), b"\xef\xbb\xbf" + "<p>café</p>".encode(), "<p>café</p>".encode("utf-16"),
        '<meta charset="latin-1"><p>café</p>'.encode("latin-1"), "<p>café</p>".encode("cp1252"),
        b'<meta http-equiv=x content="text/html; charset=koi8-r">' + "<p>кафе</p>".encode("koi8-r"),
    ):  # fmt: skip
        path.write_bytes(raw)
        assert read_page(path).text in ("café", "кафе")


def test_pages_among_documents(tmp_path, monkeypatch):
    (tmp_path / "a.html").write_text("<title>x</title><p>Cats purr.</p>")
    (tmp_path / "b.htm").write_text("<p>Dogs bark.</p>")
    (tmp_path / "c.rst").write_text("Birds\n=====\n\nThey sing.\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [d.text for d in read_documents(tmp_path)] == [
            "Cats purr.",
            "Dogs bark.",
            "Birds\n=====\n\nThey sing.\n",
        ]
    (tmp_path / "a.html").write_text("<script>document.write('x')</script>")
    with pytest.raises(BadInput, match=r"a.html: has no text that can be seen; .* saved by a browser"):
        read_documents(tmp_path / "a.html")
    import sys

    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
    with pytest.raises(MissingExtra, match=r"reading .html needs the extra 'documents'"):
        read_documents(tmp_path / "b.htm")


def test_headings_of_markdown():
    text = (
        "# One *two* [link](x)\n\ntext\n===\n\nTitle\n=====\n\nSub\n---\n\n```\n# code\n```\n## One two link ##\n"
        "####### no\n#no\n- item\n---\n\n    # indented\na\nb\n---\n~~~\n```\n# x\n~~~\n# End"
    )
    found = markdown_headings(text)
    assert [(h.level, h.title, h.anchor) for h in found] == [
        (1, "One two link", "one-two-link"), (1, "text", "text"), (1, "Title", "title"), (2, "Sub", "sub"),
        (2, "One two link", "one-two-link-1"), (1, "End", "end"),
    ]  # fmt: skip
    assert [text[h.start :].partition("\n")[0][:6] for h in found] == [
        "# One ",
        "text",
        "Title",
        "Sub",
        "## One",
        "# End",
    ]


def test_headings_of_restructured_text():
    text = (
        "=====\nBook\n=====\n\nPart\n====\n\nOne\n---\n\n"
        "text\nof two\n------\n\nPart\n====\n\n===  ===\na    b\n===  ===\n"
    )
    assert rst_headings(text) == [
        Heading(1, "Book", 0, "book"), Heading(2, "Part", 18, "part"), Heading(3, "One", 29, "one"),
        Heading(2, "Part", 58, "part-1"),
    ]  # fmt: skip


def test_slugs():
    assert slug("What's `new` in 3.11?") == "whats-new-in-311" and slug("Über-Größe") == "über-größe"
    assert unseen_style("display:none") and not unseen_style("")

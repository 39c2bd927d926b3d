"""The pages about prompting: their Python runs from top to bottom, their commands exist, their routes are served."""

from __future__ import annotations

import re
import shlex
import sys
import types
from pathlib import Path

import click
import pytest

from intarsia.cli.app import root
from intarsia.prompting.assistant.opening import _opened

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("prompting", "assistant", "serving")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", ["prompting", "assistant"])
def test_what_a_page_shows_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTARSIA_TRACE", str(tmp_path / "own.sqlite"))
    code = "\n".join(blocks(page, "python"))
    (tmp_path / "page.py").write_text(code)  # flows ask for the source of their steps
    module = types.ModuleType("page_of_the_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, str(tmp_path / "page.py"), "exec"), module.__dict__)
    out = capsys.readouterr().out
    if page == "prompting":
        assert "handbook/kettle.md#warranty" in out and "Kettle made by Smith and Sons" in out
        assert "Two years. answer" in out and "words=8" in out
    else:
        assert "“The warranty of the kettle is two years" in out and "The documents do not say." in out
    _opened.clear()


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page):
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[0] != "intarsia":
                continue
            command: click.Command = root
            words = words[1:]
            while isinstance(command, click.Group):
                found = command.get_command(click.Context(command), words[0])
                assert found is not None, line
                command, words = found, words[1:]
            command.make_context(command.name, words)


def test_every_route_stands_in_the_page():
    from intarsia.server.keys.callers import scope_of

    table = re.findall(r"^\| (`/.*?) \| .*? \| (.*?) \|$", (DOCS / "serving.md").read_text("utf-8"), re.MULTILINE)
    told = {route: scope for routes, scope in table for route in re.findall(r"`([^`]+)`", routes)}
    assert len(told) > 15
    for route, scope in told.items():
        if scope not in ("any", "none"):
            assert scope_of(route) in re.findall(r"`([^`]+)`", scope), route

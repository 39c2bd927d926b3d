"""Options follow from a config's fields, and what is given comes out as the config would read it from a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

import click
import pydantic
import pytest

from intarsia.catalog import Config, parse
from intarsia.cli import docs, options
from intarsia.cli.progress import Lines
from intarsia.errors import BadInput
from intarsia.progress import Event


class Every(Config):
    bits: Literal[8, 4] = pydantic.Field(8, description="bits a weight", json_schema_extra={"unit": "bit"})
    kind: Literal["a", "b"] | None = None
    rate: Annotated[float, pydantic.Field(gt=0)] = 1e-3
    steps: int | None = None
    layers: list[int] = pydantic.Field([1, 2])
    words: tuple[str, ...] = ()
    fast: bool = True
    slow: bool = False
    device: str = "cpu"
    share: dict[str, float] = pydantic.Field({})
    needed: str


def read(*arguments: str) -> Config:
    found: dict = {}
    command = click.Command("c", params=options.options(Every, {"train"}), callback=lambda **given: found.update(given))
    command.main(list(arguments), standalone_mode=False)
    return parse(Every, options.settings(Every, found), "c")


def test_what_is_left_out_keeps_its_default():
    assert read("--needed", "x") == Every(needed="x")


def test_every_kind_of_field():
    given = read(
        "--needed", "x", "--bits", "4", "--kind", "b", "--rate", "1e-4", "--steps", "3", "--layers", "3,4",
        "--layers", "5", "--words", "a,b", "--no-fast", "--slow", "--setting-device", "gpu",
        "--share", "a=0.5", "--share", "b=2",
    )  # fmt: skip
    assert given == Every(
        needed="x", bits=4, kind="b", rate=1e-4, steps=3, layers=[3, 4, 5], words=("a", "b"), fast=False, slow=True,
        device="gpu", share={"a": 0.5, "b": 2.0},
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--steps", "x"], ["--layers", "a"], ["--share", "a"]])
def test_values_are_checked(arguments):
    with pytest.raises(BadInput):
        read("--needed", "x", *arguments)
    with pytest.raises(BadInput, match="needed"):
        read()
    with pytest.raises(click.UsageError):
        read("--needed", "x", "--bits", "5")


def test_help_says_default_unit_and_need():
    told = {option.opts[0]: option.help for option in options.options(Every)}
    assert told["--bits"] == "Bits a weight. [bit]  [default: 8]"
    assert "[required]" in told["--needed"] and "[default: yes]" in told["--fast"]


def test_nested_configs_are_forbidden():
    class Nested(Config):
        inner: Every

    with pytest.raises(TypeError, match="a config is flat"):
        options.options(Nested)


def test_every_technique_makes_options():
    from intarsia import catalog

    for technique in catalog.load().values():
        made = options.options(technique.config, technique.inputs)
        assert len({o.name for o in made}) == len(technique.config.model_fields)


def test_pages_of_the_documentation():
    from tests import run_techniques  # noqa: F401 (declares the techniques)

    made = docs.pages()
    assert "| [`test.sum`](techniques/test.sum.md) | look |" in made["catalog.md"]
    page = made["techniques/test.perturb.md"]
    assert "| `kind` | `normal` \\| `uniform` | `normal` | the noise |" in page
    assert "$ intarsia test perturb --model smollm2-135m --data python-docs --out perturb-model" in page
    assert "`intarsia test perturb`" in made["cli.md"] and "--scale NUMBER" in made["cli.md"]
    assert "model: smollm2-135m" in made["recipes-shipped.md"]


def test_the_recipe_on_each_page_is_read(tmp_path):
    from intarsia.recipes import Recipe

    (tmp_path / "t.txt").write_text("a\n")
    page = docs.pages()["techniques/test.perturb.md"]
    steps = page.split("```yaml\n")[1].split("```")[0]
    Recipe.parse(f"model: m\ndata: {{train: t.txt}}\n{steps}", base=tmp_path)


def test_plain_progress_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("intarsia.cli.progress.time.monotonic", lambda: now[0])
    lines = Lines(interval=5)
    for done in range(11):
        lines(Event("training", done, 10, {"loss": 1.23456}, finished=False))
        now[0] += 1.5
    lines(Event("training", 10, 10, finished=True))
    lines(Event("quick", 0, 1))
    lines(Event("quick", 1, 1, finished=True))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "training 4/10 (40%) 6 s, loss 1.235",
        "training 8/10 (80%) 12 s, loss 1.235",
        "training 10/10 (100%) 16 s",
    ]

"""The documentation agrees with the code: a page a technique, the two commands first, and an example that runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import click
import pytest
from PIL import Image

from intarsia import catalog
from intarsia.cli.docs import overview, pages
from intarsia.data import Fact, FactSnapshot, TaskPair, Text
from intarsia.models import Model
from tests.clips_help import film, scenes
from tests.tiny import tiny

ROOT = Path(__file__).parents[1]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)


def own() -> dict[str, catalog.Technique]:
    """Without those of other packages, or declared by other tests."""
    return {n: t for n, t in catalog.load().items() if t.function.__module__.startswith("intarsia.")}


def test_every_technique_has_a_page_and_its_place_in_the_readme():
    generated, readme = pages(), (ROOT / "README.md").read_text("utf-8")
    for name in own():
        assert f"# {name}" in generated[f"techniques/{name}.md"]
    assert overview(list(own().values())) in readme


def shown() -> list[str]:
    return [name for name, technique in own().items() if technique.example]


def draw_pictures(folder: Path) -> None:
    folder.mkdir()
    for i in range(3):
        Image.effect_noise((24, 20), 40 + 30 * i).convert("RGB").save(folder / f"{i}.png")


@pytest.fixture(scope="module")
def python_graph() -> list[FactSnapshot]:
    """A corner of the installed Python's graph: what touches bz2 and the errors that files raise."""
    from intarsia.data.python_graph import python_graph

    near = ("bz2", "OSError", "FileNotFoundError")

    def some(facts: list[Fact]) -> list[Fact]:
        return [f for f in facts if any(name.partition(".")[0] in near for name in (f.head, f.tail))]

    cut = [replace(s, train=some(s.train), valid=some(s.valid), test=some(s.test)) for s in python_graph()]
    return [s for s in cut if s.train][:3]


@pytest.fixture(scope="module")
def grown(python_graph: list[FactSnapshot], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from intarsia.knowledge import KnowledgeGraph, grow

    graph = KnowledgeGraph(tmp_path_factory.mktemp("grown") / "python")
    graph.append(python_graph)
    grow(graph, width=8, epochs=2)
    graph.close()
    return graph.path


@pytest.fixture(scope="module")
def tasks() -> list[TaskPair]:
    return [
        TaskPair("", "yes", task=task, instruction=f"{task}:", input=f"{task} {i}", targets=("yes",), split=split)
        for task in ("news", "mood")
        for split, count in (("train", 8), ("dev", 2), ("test", 2))
        for i in range(count)
    ]


def write_tasks(folder: Path, tasks: list[TaskPair]) -> None:
    folder.mkdir()
    for e in tasks:
        with (folder / f"{e.task}.{e.split}.jsonl").open("a") as file:
            file.write(json.dumps({"instruction": e.instruction, "input": e.input, "output": e.target}) + "\n")


@pytest.fixture(scope="module")
def skilled(tasks: list[TaskPair], tmp_path_factory: pytest.TempPathFactory) -> Model:
    from intarsia.adaptation import continual

    return continual(tiny("llama"), stream=tasks, epochs=1, rank=2, keep=tmp_path_factory.mktemp("skilled"))


@pytest.fixture(scope="module")
def routing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a routing trace, and a placement made of it."""
    from intarsia.moe import place
    from intarsia.moe.routing.recording import record

    folder = tmp_path_factory.mktemp("routing")
    trace = record(tiny("olmoe"), ["one text of some words", "and another one"], length=8)
    trace.save(folder / "trace.npz")
    place(trace, devices=2, effort=10, to=folder / "placement.json")
    tiny("olmoe").save(folder / "model")
    return folder


@pytest.fixture(scope="module")
def detection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, an essay, papers, and a detector that a tiny model listens for."""
    from intarsia.detection import Documents, train
    from tests.test_detection_check import documents, text

    folder = tmp_path_factory.mktemp("detection")
    for kind, some in (("human", documents(False, 60)), ("machine", documents(True, 60))):
        for number, document in enumerate(some):
            file = folder / "corpus" / kind / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(document.text)
    (folder / "papers").mkdir()
    for number in range(25):
        (folder / "papers" / f"{number}.txt").write_text(text("letters", 900 + number, False))
    (folder / "essay.txt").write_text(text("letters", 700, True))
    tiny("llama").save(folder / "scorer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTARSIA_CACHE", str(folder / "cache"))
        made = train(Documents.open(folder / "corpus"), scorer=str(folder / "scorer"), tokens=32)
    made.scorer = "smollm2-135m"
    made.save(folder / "detector")
    return folder


class Scribe:
    """A tiny random model's words are no text: this one writes some."""

    name = "scribe"

    def write(self, prompts, **settings):
        return [" ".join(f"word{i}" for i in range(60)) for _ in prompts]


def prepare_detection(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, tiny models for all that is loaded by name, and a tiny detector for the one that comes along."""
    shutil.copytree(folder, Path.cwd(), dirs_exist_ok=True)
    monkeypatch.setattr("intarsia.models.load", lambda source: tiny("bert-encoder" if source == "minilm" else "llama"))
    monkeypatch.setattr("intarsia.detection.profiles.profile_path", lambda name: folder / "detector")
    monkeypatch.setattr("intarsia.detection.writing.writer.open_writer", lambda spec: Scribe())


@pytest.mark.parametrize("name", shown())
def test_the_example_of_a_technique_runs(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys, request: pytest.FixtureRequest
):
    import intarsia as ia

    (code,) = re.findall(r"```python\n(.*?)```", pages()[f"techniques/{name}.md"], re.DOTALL)
    seeds = iter(range(10))  # a second model of an example is another one
    family = {"vision": "clip", "captions": "blip"}.get(own()[name].needs, "llama")
    monkeypatch.setattr(ia, "load", lambda source: tiny(family, seed=next(seeds)))
    if own()[name].needs.startswith("experts"):
        monkeypatch.setattr(ia, "load", lambda source: tiny("olmoe"))
        kept = request.getfixturevalue("routing") / "model"
        monkeypatch.setattr("intarsia.models.loading.located", lambda source: kept)
    for made in request.getfixturevalue("routing").glob("*.*"):
        shutil.copy(made, tmp_path)
    if own()[name].needs == "skills":
        monkeypatch.setattr(ia, "load", lambda source: request.getfixturevalue("skilled"))
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path / "tasks", request.getfixturevalue("tasks"))
    draw_pictures(tmp_path / "pictures")
    (tmp_path / "clips").mkdir()
    film(tmp_path / "clips" / "one.mp4", scenes([6, 8]))
    if own()[name].room == "knowledge":
        from intarsia.knowledge.store import place

        monkeypatch.setitem(place.KNOWN, "python", lambda: request.getfixturevalue("python_graph"))
        shutil.copytree(request.getfixturevalue("grown"), tmp_path / "runs" / "python")
    if own()[name].room == "detection":
        prepare_detection(request.getfixturevalue("detection"), monkeypatch)
    exec(compile(code, name, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_every_way_of_looking_inside_has_its_place_and_an_example():
    for name, technique in catalog.load().items():
        if technique.room == "interpretation":
            assert technique.place, name
            assert technique.example, name


def test_the_readme_begins_with_exactly_the_two_commands():
    first = (ROOT / "README.md").read_text("utf-8").splitlines()[:15]
    commands = [line.removeprefix("$ ").partition("#")[0].strip() for line in first if line.startswith("$ ")]
    assert commands == ["make demo", "make test"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)


def test_every_page_of_the_navigation_exists():
    written = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    named = set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert named <= written | set(pages())


@pytest.mark.parametrize(
    "path", ["README.md", *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.md"))]
)
def test_python_blocks_are_python(path: str):
    for block in blocks(ROOT / path, "python"):
        compile(block, path, "exec")


WRITTEN = ["README.md", *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("path", WRITTEN)
def test_command_lines_are_understood(path: str):
    from intarsia.cli.techniques import room, rooms

    for block in blocks(ROOT / path, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["intarsia"] and len(words) > 2 and words[1] in rooms() and "--help" not in words:
                made = room(words[1]).get_command(click.Context(room(words[1])), words[2])
                assert made is not None, line
                made.make_context(made.name, words[3:])


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The example of CONTRIBUTING.md as a module; what it declares is forgotten afterwards."""
    catalog.load()
    monkeypatch.setattr(catalog, "_techniques", dict(catalog._techniques))
    module = types.ModuleType("intarsia_example")
    monkeypatch.setitem(sys.modules, "intarsia_example", module)
    (code,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    return module


def test_the_example_of_contributing_works(example: types.ModuleType):
    import torch

    model = tiny("llama")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    pruned = example.prune(model, share=0.5)
    zeros = sum(int((p == 0).sum()) for p in pruned.network.model.layers.parameters())
    count = sum(p.numel() for p in pruned.network.model.layers.parameters())
    assert 0.45 < zeros / count < 0.55
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())
    found = example.norms(pruned, texts=[Text("one text"), Text("another, longer")])
    assert len(found.norms) == 4 and min(found.norms.values()) > 0
    assert catalog.find("example.norms").inputs == {"texts": ("list[Text]", True)}


def test_declaring_the_example_imports_no_torch():
    (code,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    check = f"{code}\nimport sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)

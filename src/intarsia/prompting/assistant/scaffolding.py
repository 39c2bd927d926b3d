"""`new_assistant`: the project of an assistant, written into a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import string
import tempfile
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput, writing_to
from intarsia.prompting.assistant.documents import update
from intarsia.prompting.assistant.opening import Assistant
from intarsia.prompting.assistant.questions import made_of
from intarsia.prompting.assistant.settings import FILE, Answers, Settings
from intarsia.prompting.base.opening import is_remote
from intarsia.prompting.data.loading import PYTHON, is_database

QUESTIONS = "questions.jsonl"
MODEL = "smollm2-135m"
# Words by which people ask for relations of the graph `python`, beside their names.
PYTHON_RELATIONS = {
    "added_in": ["added", "version", "since", "introduced"],
    "alias_of": ["alias", "another"],
    "catches": ["catch"],
    "chapter": ["chapter"],
    "imports": ["import"],
    "inherits_from": ["inherit", "subclass", "base", "parent", "superclass", "derived"],
    "overrides": ["override"],
    "raises": ["raise"],
    "takes": ["parameter", "argument", "accept"],
}


def new_assistant(
    folder: str | Path, documents: Sequence[str | Path] = (), *, python: bool = False, graph: str | Path | None = None,
    model: str = MODEL, encoder: str | None = "minilm", answers: Answers | None = None, name: str = "", about: str = "",
) -> Assistant:  # fmt: skip
    """Write an assistant's project into a new folder, and read its documents into its store.

    - documents: files, folders or databases, as `load_documents` reads them. python: the documentation and the facts of
      the installed interpreter instead.
    - graph: a knowledge graph's folder, a file of facts, or `python`. model: as `open_backend` takes it.
    - encoder: what embeds passages and questions; None: the search is by words alone.
    - answers: `quote` or `write`; None: a model behind a server writes, one that runs here does not, since small ones
      hardly ever write what their passages hold (docs/assistant.md).
    - name: default: the folder's. about: what the documents are about, as the prompts say it.

    Raises `BadInput` for a folder with something in it, and for documents that cannot be read: then nothing is left."""
    folder = Path(folder).expanduser()
    if python and documents:
        raise BadInput("the assistant of Python's documentation has its documents: leave --documents out")
    if not python and not documents:
        raise BadInput("an assistant wants documents: give --documents FOLDER, or --python-docs")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder}: is there already, with something in it; give a new folder")
    for source in documents:
        if not is_database(str(source)) and not Path(source).expanduser().exists() and str(source) != PYTHON:
            raise BadInput(f"{source}: no such file or folder")
    if graph is not None and str(graph) != "python" and not Path(graph).expanduser().exists():
        raise BadInput(f"{graph}: no graph there; give the folder of one, a file of facts, or python")
    name = name or ("python" if python else folder.absolute().name)
    settings = Settings(
        name=name, model=str(model), encoder=encoder,
        answers=answers or ("write" if is_remote(str(model)) else "quote"),
        about=about or ("Python and its standard library" if python else f"the documents in {_shown(documents)}"),
        documents=[PYTHON] if python else [_from(folder, source) for source in documents],
        graph="python" if python else None if graph is None else _from(folder, graph),
        relations=PYTHON_RELATIONS if python or str(graph) == "python" else {},
    )  # fmt: skip
    with writing_to(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(beside, settings, python)
        made = Assistant(beside.absolute(), settings)
        update(made)
        if not python:  # whose questions were written by hand
            _write_lines(beside / QUESTIONS, made_of(made.store))
        _readme(beside, settings, python)
        made.store.close()
        if folder.exists():
            folder.rmdir()
        beside.chmod(0o755)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return Assistant.open(folder)


def _shown(documents: Sequence[str | Path]) -> str:
    return ", ".join(Path(source).name or str(source) for source in documents)


def _from(folder: Path, source: str | Path) -> str:
    """A path as the assistant's folder sees it."""
    if str(source) in (PYTHON, "python") or is_database(str(source)):
        return str(source)
    return Path(os.path.relpath(Path(source).expanduser().absolute(), folder.absolute())).as_posix()


def _write(folder: Path, settings: Settings, python: bool) -> None:
    """The project's files; those of `python/` in place of the others."""
    root = resources.files("intarsia.prompting.assistant").joinpath("template")
    _copied(root, folder, skip=("python", "README.md", "__pycache__"))
    if python:
        _copied(root.joinpath("python"), folder, skip=("__pycache__",))
    (folder / FILE).write_text(written(settings), "utf-8")


def _copied(source: Traversable, to: Path, skip: Sequence[str] = ()) -> None:
    to.mkdir(exist_ok=True)
    for item in source.iterdir():
        if item.name in skip:
            continue
        if item.is_dir():
            _copied(item, to / item.name)
        else:
            (to / item.name).write_text(item.read_text("utf-8"), "utf-8")


def written(settings: Settings) -> str:
    """`assistant.yaml`: every setting, with what it means."""
    import yaml

    lines = []
    for key, field in Settings.model_fields.items():
        value: Any = getattr(settings, key)
        if isinstance(value, dict) and value:
            rows = yaml.safe_dump(value, allow_unicode=True, default_flow_style=None, width=1000).splitlines()
            text = "\n" + "\n".join(f"  {row}" for row in rows)
        else:
            text = " " + yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=1000).split("\n")[0]
        lines += [f"# {field.description}", f"{key}:{text}"]
    return "\n".join(lines) + "\n"


def _readme(folder: Path, settings: Settings, python: bool) -> None:
    text = resources.files("intarsia.prompting.assistant").joinpath("template", "README.md").read_text("utf-8")
    first = json.loads((folder / QUESTIONS).read_text("utf-8").partition("\n")[0])["question"]
    made = "" if python else ": made from headings, and so easier than people's"
    told = {"name": settings.name, "about": settings.about, "question": first.replace('"', "'"), "made": made}
    (folder / "README.md").write_text(string.Template(text).substitute(told), "utf-8")


def _write_lines(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")

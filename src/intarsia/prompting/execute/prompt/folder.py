"""Prompts of a folder, and what changed between two of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.execute.prompt.prompt import Prompt

SHIPPED = "intarsia:"
_PACKAGE = Path(__file__).parent.parent / "prompts"


def shipped() -> dict[str, Path]:
    """Prompts that come with the package, by name (`intarsia:propose`). Each is sent by one function alone, which says
    so; none is put into another."""
    return {SHIPPED + path.name.removesuffix(".md.j2"): path for path in sorted(_PACKAGE.glob("*.md.j2"))}


def find(name: str | Path) -> Path:
    """The file of a prompt: a path, or the name of one that comes with the package."""
    if not str(name).startswith(SHIPPED):
        return Path(name).expanduser()
    known = shipped()
    if str(name) not in known:
        raise BadInput(
            f"no prompt '{name}' comes with the package{did_you_mean(str(name), known)}; {', '.join(known)} do"
        )
    return known[str(name)]


def prompts_in(folder: str | Path) -> dict[Path, Prompt | BadInput]:
    """All `*.j2` of a folder and the folders in it, by path; for one that is no prompt, what is wrong with it. Hidden
    folders are left out."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give one with prompts (*.md.j2)")
    out: dict[Path, Prompt | BadInput] = {}
    for path in sorted(folder.rglob("*.j2")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            out[path] = Prompt.load(path)
        except BadInput as error:
            out[path] = error
    return out


def difference(old: Prompt, new: Prompt, inputs: Mapping[str, Any] | None = None) -> list[str]:
    """What changed between two prompts, as lines of a unified diff; none where nothing did.

    - inputs: filled into both, so that the difference is that of what is sent; None: of the sources. Of inputs that
      one of the two does not have, it gets none."""
    if inputs is None:
        texts = [old.source, new.source]
    else:
        names = {*old.inputs, *new.inputs}
        if unknown := [name for name in inputs if name not in names]:
            raise BadInput(f"neither prompt has an input '{unknown[0]}'{did_you_mean(unknown[0], names)}")
        # One seed, and each fence by its own version: marks differ, which is no difference of wording.
        made = [p.render(seed="", **{k: v for k, v in inputs.items() if k in p.inputs}) for p in (old, new)]
        texts = [str(m).replace(m.fence, "untrusted") if m.fence else str(m) for m in made]
    lines = [text.splitlines() for text in texts]
    ends = [f"{prompt.name} {prompt.version}" for prompt in (old, new)]
    return list(difflib.unified_diff(*lines, *ends, lineterm=""))

"""A small handbook with facts, and the assistant that is made of it."""

from __future__ import annotations

from pathlib import Path

from intarsia.prompting.assistant import Assistant, new_assistant

KETTLE = """# Kettle

## Warranty

The warranty of the kettle is two years from the day it was bought. Keep the bill: without it nothing is repaired.

## Descaling

Descale the kettle every month with 50 ml of vinegar in half a litre of water. Let it stand for an hour.
"""
PAN = """# Pan

## Care

Do not put the pan into the dishwasher. Wash it by hand with warm water and a soft cloth, then rub it with oil.

## Warranty

The pan comes with a warranty of ten years for the handle. The coating is not covered by any warranty.
"""
FACTS = "Kettle\tmade_by\tSmith and Sons\nPan\tmade_by\tBrown\nSmith and Sons\tlives_in\tLeeds\n"


def handbook(folder: Path) -> Path:
    """Files of documents in `folder`/handbook, facts beside it."""
    (folder / "handbook").mkdir()
    (folder / "handbook" / "kettle.md").write_text(KETTLE)
    (folder / "handbook" / "pan.md").write_text(PAN)
    (folder / "facts.tsv").write_text(FACTS)
    return folder


def made(folder: Path, **settings: object) -> Assistant:
    """An assistant in `folder`/helper, without a real model and searched by words."""
    handbook(folder)
    return new_assistant(
        folder / "helper", [folder / "handbook"], graph=folder / "facts.tsv", model="fake:", encoder=None,
        answers="write", **settings,
    )  # type: ignore[arg-type]  # fmt: skip

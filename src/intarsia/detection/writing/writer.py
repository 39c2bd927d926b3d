"""`Writer`: whatever writes text for a prompt, here or on a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from intarsia.errors import BadInput


class Writer(Protocol):
    """What writes. `name`: what texts of its hand are labelled with."""

    name: str

    def write(
        self, prompts: Sequence[str], *, most_tokens: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0,
        chat: bool = True,
    ) -> list[str]:  # fmt: skip
        """A text for every prompt, in their order; equal prompts get texts that are drawn apart.

        - most_tokens: of each text. temperature: 0 takes the most probable token always. top_p: tokens are drawn from
          the fewest that have this probability together.
        - seed: of the draws; equal calls give equal texts where the writer can see to it.
        - chat: the prompt is what a person says to the model; else the text is what comes right after the prompt."""
        ...


def check_drawing(most_tokens: int, temperature: float, top_p: float) -> None:
    """Raise `BadInput` for settings that no text can be drawn with."""
    if most_tokens < 1:
        raise BadInput(f"most_tokens is {most_tokens}: give at least 1")
    if not temperature >= 0:
        raise BadInput(f"temperature is {temperature}: give 0 or more")
    if not 0 < top_p <= 1:
        raise BadInput(f"top_p is {top_p}: give more than 0, and at most 1")


def open_writer(spec: str) -> Writer:
    """The writer that a text names: `https://server/v1#model` is a model behind an OpenAI-compatible server, anything
    else a model that `intarsia.load` finds.

    Raises `BadInput` for an address without `#model`, and as `load`."""
    from intarsia.detection.writing.local import LocalWriter
    from intarsia.detection.writing.remote import RemoteWriter
    from intarsia.models.remote import server_and_model

    if spec.lower().startswith(("http://", "https://")):
        return RemoteWriter(*server_and_model(spec))

    from intarsia.models import load

    return LocalWriter(load(spec))

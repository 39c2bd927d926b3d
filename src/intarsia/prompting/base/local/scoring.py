"""`Scoring`: a prompt, and texts whose log probability behind it is wanted, while it is worked on.

The texts are a tree: what two of them begin with is read once, the last token of each not at all, and a text of one
token costs nothing. Source: Miao et al. 2024, "SpecInfer", §4 (a tree of tokens in one forward)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intarsia.prompting.base.replies import Scores, Usage
from intarsia.prompting.base.token_tree import TokenTree, tree_of

if TYPE_CHECKING:
    from torch import Tensor

NODES = 128  # tokens of a tree in one forward, but for a text that is longer
AT_ONCE = 16  # places whose logits are added up in float64 at a time


@dataclass(frozen=True)
class Part:
    """Some of the texts, their tree, and where in it each of their tokens is told of (`tree_of`)."""

    texts: tuple[tuple[int, ...], ...]
    tree: TokenTree
    places: list[list[int]]


class Scoring:
    """Goes through the engine beside answers: admitted, its prompt read in pieces, found again and kept as theirs.

    - ids: the prompt's tokens. known: how many of them a runner has computed; cached: those that it had before.
    - deliver: takes the `Scores`, or the error it ended with. cancelled: nobody waits any more. Set from any thread."""

    def __init__(
        self, ids: Sequence[int], texts: Sequence[Sequence[int]], adapter: str | None,
        deliver: Callable[[Scores | Exception], None],
    ):  # fmt: skip
        self.ids, self.prompt, self.adapter, self.deliver = list(ids), len(ids), adapter, deliver
        self.row, self.known, self.cached, self.cancelled = -1, 0, 0, False
        self.finish: str | None = None
        self._texts = [tuple(text) for text in texts]
        self._parts = parts_of(self._texts)
        self._found: dict[tuple[int, ...], float] = {}
        self.room = max(len(part.tree) for part in self._parts)
        self._usage = Usage(self.prompt + sum(len(part.tree) for part in self._parts))

    @property
    def tree(self) -> TokenTree:
        """What is read behind the prompt next."""
        return self._parts[0].tree

    @property
    def pending(self) -> int:
        """Tokens of the prompt that are still to be computed; the last runs with the tree, and tells of what comes
        first."""
        return len(self.ids) - self.known

    def begin(self) -> None:
        """Nothing to do."""

    def take(self, logits: Tensor) -> None:
        """Note what was read. logits: [1 + token of the tree, vocabulary]: behind the prompt, then behind each."""
        import torch

        part = self._parts.pop(0)
        whole = torch.cat([some.double().logsumexp(-1) for some in logits.split(AT_ONCE)])
        for text, places in zip(part.texts, part.places, strict=True):
            self._found[text] = float((logits[places, list(text)].double() - whole[places]).sum())
        self.known = len(self.ids) - bool(self._parts)  # what is left begins behind the same token
        if not self._parts:
            self.finish = "stop"
            usage = Usage(self._usage.prompt, cached=self.cached)
            self.deliver(Scores([self._found[text] for text in self._texts], usage))

    def fail(self, error: Exception) -> None:
        """It cannot be gone on with."""
        self.finish = "cancelled"
        self.deliver(error)


def parts_of(texts: Sequence[tuple[int, ...]], most: int = NODES) -> list[Part]:
    """Texts in parts whose trees have at most so many tokens, or one text each. Those that begin alike are together,
    none is in two, and equal ones are one."""
    groups: list[list[tuple[int, ...]]] = []
    held: set[tuple[int, ...]] = set()
    for text in sorted(set(texts)):
        new = {text[:end] for end in range(1, len(text))}
        if not groups or len(held | new) > most:
            groups.append([])
            held = set()
        groups[-1].append(text)
        held |= new
    return [Part(tuple(group), *tree_of(group)) for group in groups]

"""The prefix trie of tokenised verbalisers.

A label's score is the probability of its path when the model may only write labels: at every node where paths part, the
softmax over the branches. Where there is only one way on, nothing has to be computed, so that labels whose first tokens
differ need a single forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.measure.labels import LabelTask


@dataclass(frozen=True)
class Node:
    """A place where paths part.

    - path: token ids from the root to here.
    - branches: the token ids that go on, ascending.
    - members: for each branch, the numbers of the labels behind it."""

    path: tuple[int, ...]
    branches: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Trie:
    """All nodes where paths part, the shallowest first, and the full token sequence of each label."""

    nodes: tuple[Node, ...]
    sequences: tuple[tuple[int, ...], ...]

    @property
    def flat(self) -> bool:
        """True when first tokens differ: one forward scores every label."""
        return len(self.nodes) == 1 and not self.nodes[0].path

    @property
    def depth(self) -> int:
        """Tokens from the root to the deepest place where paths part."""
        return max(len(node.path) for node in self.nodes)

    def steps(self, label: int) -> list[tuple[Node, int]]:
        """The parting nodes on a label's path, each with the number of the branch taken."""
        return [(n, b) for n in self.nodes for b, members in enumerate(n.members) if label in members]


def build(sequences: Sequence[Sequence[int]], names: Sequence[str] | None = None) -> Trie:
    """The trie of token sequences, one a label. Raises `BadInput` when two are equal or one begins another."""
    names = names or [str(i) for i in range(len(sequences))]
    paths = [tuple(s) for s in sequences]
    for i, path in enumerate(paths):
        for j, other in enumerate(paths):
            if i != j and other[: len(path)] == path:
                raise BadInput(
                    f"the labels '{names[i]}' and '{names[j]}' cannot be told apart: the tokens of the first's "
                    "verbaliser begin the second's; give one of them another verbaliser"
                )
    nodes: list[Node] = []
    level: list[tuple[int, ...]] = [()]
    while level:
        deeper: list[tuple[int, ...]] = []
        for prefix in level:
            at = len(prefix)
            ways: dict[int, list[int]] = {}
            for label, path in enumerate(paths):
                if path[:at] == prefix and len(path) > at:
                    ways.setdefault(path[at], []).append(label)
            if len(ways) > 1:
                order = sorted(ways)
                nodes.append(Node(prefix, tuple(order), tuple(tuple(ways[t]) for t in order)))
            deeper += [(*prefix, token) for token, labels in sorted(ways.items()) if len(labels) > 1]
        level = deeper
    return Trie(tuple(nodes), tuple(paths))


def of_task(task: LabelTask, tokenizer: Any) -> Trie:
    """The trie of a task's verbalisers.

    Tokens are those the verbaliser has *after the prompt's cue*: when the ids of cue + verbaliser begin with the ids of
    the cue, the rest is taken (a SentencePiece tokenizer would else put a second word mark in front); when the two fuse
    at the seam, the verbaliser is tokenised alone, since the model always reads the prompt's own ids first."""
    cue = task.template.partition("{text}")[2] or "."
    head = _ids(tokenizer, cue)

    def tail(words: str) -> list[int]:
        joint = _ids(tokenizer, cue + words)
        return joint[len(head) :] if joint[: len(head)] == head and len(joint) > len(head) else _ids(tokenizer, words)

    sequences = [tail(task.verbalisers[label]) for label in task.labels]
    for i, label in enumerate(task.labels):
        begins = any(i != j and other[: len(sequences[i])] == sequences[i] for j, other in enumerate(sequences))
        longer = [other for other in sequences if other != sequences[i]]
        if begins and len(longer) == len(sequences) - 1:
            sequences[i] = tail(task.verbalisers[label] + task.end)
    return build(sequences, task.labels)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])

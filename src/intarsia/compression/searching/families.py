"""The ways to make a network smaller before its weights are rounded, each one step that a composition may have.

A family says how hard it can go, what is left then by arithmetic, and how it is done. A new one is a class here and its
line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from intarsia.compression.linears import linears
from intarsia.compression.pruning.parts import mlp_of, width_key
from intarsia.compression.pruning.rebuilding import text_config
from intarsia.compression.pruning.technique import NarrowConfig
from intarsia.compression.quantization.grids import Grid
from intarsia.compression.refitting import refit
from intarsia.compression.searching.anatomy import Anatomy
from intarsia.compression.searching.feasibility import narrower
from intarsia.compression.searching.knowing import Evidence
from intarsia.compression.searching.stores import GROUP
from intarsia.errors import BadInput, first_line

if TYPE_CHECKING:
    from intarsia.models import Model

Cut = tuple[str, float]
"""A family's name, and how hard it goes: a number of tokens or of blocks, a share."""
MISSED = 6.0  # nats: what a token costs that is not there; 4 and 9 on a model of 135 M with 16,384 and 8,192 of 49,152


class Family:
    """- name: of the family. hurts: whether what is left can learn to make good for what went."""

    name = ""
    hurts = True
    stores: tuple[str, ...] | None = None
    """Engines whose files hold what it makes; None: all."""

    def refuses(self, model: Model) -> str | None:
        """Why it cannot be done to a model, in one line; None where it can."""
        return None

    def values(self, evidence: Evidence, shape: Anatomy) -> list[float]:
        """How hard it may go, the mildest first; cheap to tell."""
        raise NotImplementedError

    def shape(self, shape: Anatomy, value: float, evidence: Evidence) -> Anatomy:
        """What is left, by arithmetic; matrices keep the names they had."""
        raise NotImplementedError

    def predicted(self, value: float, evidence: Evidence) -> float:
        """KL in nats a token that it is expected to cost."""
        raise NotImplementedError

    def apply(self, model: Model, value: float, evidence: Evidence) -> Model:
        """Do it."""
        raise NotImplementedError

    def said(self, value: float) -> str:
        """In a few words."""
        raise NotImplementedError

    def origin(self, value: float, evidence: Evidence, name: str) -> str:
        """What a layer of the network that is left was called before."""
        return name

    def keeps(self, role: str) -> bool:
        """Whether layers of a role are left with the weights they had."""
        return True


class Vocabulary(Family):
    """`compression.trim_vocabulary`: tokens that the calibration text does not use go."""

    name, hurts = "vocabulary", False

    def refuses(self, model: Model) -> str | None:
        from intarsia.compression.vocabulary import rewriting, slicing

        try:
            rewriting.read(model.tokenizer)
            slicing.check(model)
        except BadInput as error:
            return first_line(error)
        return None

    def values(self, evidence: Evidence, shape: Anatomy) -> list[float]:
        tokenizer: Any = evidence.model.tokenizer
        # Room for the bytes, the specials, and the tokens between bytes and those in use.
        least = -(-(len(evidence.uses[0]) + 512) * 5 // 4 // 1024) * 1024
        rows = sorted({max(shape.rows // part // 256 * 256, least) for part in (3, 6)}, reverse=True)
        return [float(n) for n in rows if n <= 0.8 * min(shape.rows, len(tokenizer))]

    def shape(self, shape: Anatomy, value: float, evidence: Evidence) -> Anatomy:
        return shape.with_rows(int(value))

    def predicted(self, value: float, evidence: Evidence) -> float:
        return MISSED * evidence.missed(int(value))

    def apply(self, model: Model, value: float, evidence: Evidence) -> Model:
        from intarsia.compression.vocabulary.technique import trim_vocabulary

        return trim_vocabulary(model, size=int(value), train=evidence.texts)

    def said(self, value: float) -> str:
        return f"vocabulary of {int(value):,}"


class TableBits(Family):
    """Embedding and head in 4 bits in place of 8; the network itself stays as it is until it is rounded."""

    name, hurts = "table_bits", False

    def refuses(self, model: Model) -> str | None:
        width = model.network.get_input_embeddings().weight.shape[1]
        if width % GROUP:
            return f"rows of the vocabulary have {width} weights, not a multiple of {GROUP}"
        return None if model.network.get_output_embeddings() is not None else "the network has no output head"

    def values(self, evidence: Evidence, shape: Anatomy) -> list[float]:
        return [4.0]

    def shape(self, shape: Anatomy, value: float, evidence: Evidence) -> Anatomy:
        return replace(shape, table_bits=int(value))

    def predicted(self, value: float, evidence: Evidence) -> float:
        return evidence.table_harm(Grid(int(value), GROUP, True))

    def apply(self, model: Model, value: float, evidence: Evidence) -> Model:
        return model

    def said(self, value: float) -> str:
        return f"vocabulary in {int(value)} bits"


class Blocks(Family):
    """`compression.drop_blocks`: whole blocks go, those without which the predictions move least."""

    name = "blocks"
    most = 1 / 5  # of the depth: beyond, one ranking of single blocks tells little of several

    def refuses(self, model: Model) -> str | None:
        return None if len(model.sites.blocks) > 1 else "the network has one block"

    def values(self, evidence: Evidence, shape: Anatomy) -> list[float]:
        return [float(n) for n in range(1, max(1, int(self.most * shape.blocks)) + 1)]

    def shape(self, shape: Anatomy, value: float, evidence: Evidence) -> Anatomy:
        return shape.without_blocks(self.gone(value, evidence))

    def predicted(self, value: float, evidence: Evidence) -> float:
        return sum(one["divergence"] for one in evidence.order[: int(value)])

    def gone(self, value: float, evidence: Evidence) -> list[int]:
        """Their numbers."""
        return [one["block"] for one in evidence.order[: int(value)]]

    def apply(self, model: Model, value: float, evidence: Evidence) -> Model:
        from intarsia.compression.pruning.technique import drop_blocks

        return drop_blocks(model, blocks=tuple(self.gone(value, evidence)))

    def said(self, value: float) -> str:
        return f"{int(value)} {'block' if value == 1 else 'blocks'} fewer"

    def origin(self, value: float, evidence: Evidence, name: str) -> str:
        tower = evidence.model.sites.main
        number, _, rest = name.removeprefix(f"{tower.path}.").partition(".")
        if not name.startswith(f"{tower.path}."):
            return name
        left = [i for i in range(len(tower.blocks)) if i not in self.gone(value, evidence)]
        return f"{tower.path}.{left[int(number)]}.{rest}"


class Neurons(Family):
    """`compression.narrow`: neurons of the MLPs go, and what is left is refitted."""

    name = "neurons"
    multiple = 32  # of which what is left is a multiple: a block of GGUF

    def refuses(self, model: Model) -> str | None:
        try:
            width_key(text_config(model, self.name), self.name)
            for number in range(len(model.sites.blocks)):
                mlp_of([layer for layer in linears(model) if layer.block == number], self.name)
        except BadInput as error:
            return first_line(error)
        return None

    def values(self, evidence: Evidence, shape: Anatomy) -> list[float]:
        return [share for share in (0.125, 0.25) if narrower(shape, share, self.multiple).body < shape.body]

    def shape(self, shape: Anatomy, value: float, evidence: Evidence) -> Anatomy:
        return narrower(shape, value, self.multiple)

    def predicted(self, value: float, evidence: Evidence) -> float:
        total, tower = 0.0, evidence.folded.sites.main
        for number in range(len(tower.blocks)):
            part = mlp_of([layer for layer in evidence.layers.values() if layer.block == number], self.name)
            stats = evidence.heard.stats.get(part.down.name)
            if stats is None:
                continue
            left = max(1, round((1 - value) * part.size / self.multiple)) * self.multiple
            kept = part.scores(stats.moment).topk(min(left, part.size)).indices.sort().values
            weight = part.down.weight.float()
            change = torch.zeros_like(weight)
            change[:, kept] = refit(weight, stats.moment, kept, NarrowConfig().ridge)
            total += evidence.heard.of(part.down.name, change - weight)
        return total

    def apply(self, model: Model, value: float, evidence: Evidence) -> Model:
        from intarsia.compression.pruning.technique import narrow

        count = sum(map(len, evidence.windows))
        return narrow(model, neurons=value, multiple=self.multiple, calibration=evidence.texts, tokens=count)

    def said(self, value: float) -> str:
        return f"{value:.1%} of the neurons fewer".replace(".0%", "%")

    def keeps(self, role: str) -> bool:
        return role not in ("gate", "up", "down", "gate_up")


class Rank(Family):
    """`compression.factorize`: linear layers as products of two; no engine's file but torch's own holds these."""

    name, stores = "rank", ("torch",)

    def values(self, evidence: Evidence, shape: Anatomy) -> list[float]:
        return [0.9, 0.8]

    def shape(self, shape: Anatomy, value: float, evidence: Evidence) -> Anatomy:
        return shape.changed(lambda m: replace(m, rows=int(m.rows * value)))

    def predicted(self, value: float, evidence: Evidence) -> float:
        return 3.5 * (1 - value)  # measured on a language model of 135 M parameters

    def apply(self, model: Model, value: float, evidence: Evidence) -> Model:
        from intarsia.compression.factorization.technique import factorize

        count = sum(map(len, evidence.windows))
        return factorize(model, keep=value, calibration=evidence.texts, tokens=count)

    def said(self, value: float) -> str:
        return f"factors with {value:.0%} of the body"

    def origin(self, value: float, evidence: Evidence, name: str) -> str:
        stem, _, leaf = name.rpartition(".")
        return stem if leaf in ("first", "second") else name

    def keeps(self, role: str) -> bool:
        return False


FAMILIES: dict[str, Family] = {
    family.name: family for family in (Vocabulary(), TableBits(), Blocks(), Neurons(), Rank())
}
"""By name, in the order in which they are done to a network: that of what a megabyte costs, the least first."""


def said_of(cuts: Sequence[Cut]) -> str:
    """What is cut, in a few words."""
    return ", ".join(FAMILIES[name].said(value) for name, value in cuts)

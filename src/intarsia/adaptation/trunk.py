"""The frozen-trunk cache: with adapters on the upper blocks only, the states that enter the first adapted block never
change. They are computed once and stored; every epoch then runs the upper blocks alone.

Cost per token and epoch, for N parameters in L blocks of which the lower k are frozen: 4N(1 - k/L) instead of
2N + 2N(1 - k/L), after 2N k/L once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.adaptation.lora import first_block
from intarsia.errors import BadInput
from intarsia.measure.likelihood import accepts, given, left_padded
from intarsia.progress import track

if TYPE_CHECKING:
    import torch

    from intarsia.adaptation.label import LabelConfig
    from intarsia.adaptation.label_tuning import Examples
    from intarsia.models import Model


class Trunk:
    """States entering the first adapted block, batch by batch, in a memory-mapped temporary file."""

    def __init__(self, model: Model, examples: Examples, batches: Sequence[Sequence[int]], first: int, dtype: str):
        import numpy as np

        self._model, self._first, self._keep = model, first, examples.keep
        pad = model.tokenizer.pad_token_id or 0
        keys = accepts(model.network)
        self._inputs = [given(left_padded([examples.ids[row] for row in rows], pad), keys) for rows in batches]
        width = model.config.get_text_config().hidden_size
        sizes = [batch["input_ids"].numel() * width for batch in self._inputs]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._file = tempfile.TemporaryFile(prefix="intarsia-trunk-")  # noqa: SIM115 - lives as long as the trunk
        self._states = np.memmap(self._file, dtype=dtype, mode="w+", shape=(sum(sizes),))
        self._shapes = [(*batch["input_ids"].shape, width) for batch in self._inputs]
        self._fill()

    @classmethod
    def of(
        cls, model: Model, examples: Examples, batches: Sequence[Sequence[int]], config: LabelConfig
    ) -> Trunk | None:
        """The trunk that the config asks for, filled; None when it asks for none.

        Raises `BadInput` when the adapters begin at the first block: nothing below them is frozen."""
        if config.trunk_cache == "off":
            return None
        first = first_block(model.network, config.layers_from)
        if first == 0:
            raise BadInput("trunk_cache needs frozen blocks below the adapters: set layers_from (0.5: the upper half)")
        return cls(model, examples, batches, first, config.trunk_cache)

    @property
    def _site(self) -> str:
        return f"layers.{self._first - 1}.resid_post"

    def _fill(self) -> None:
        from intarsia.sites import read

        for number in track(range(len(self._inputs)), "reading the frozen trunk"):
            states = read(self._model, self._batch(number), self._site)[self._site]
            start = self._starts[number]
            self._states[start : start + states.numel()] = states.float().flatten().cpu().numpy()

    def _batch(self, number: int) -> dict[str, torch.Tensor]:
        return {name: value.to(self._model.device) for name, value in self._inputs[number].items()}

    def logits(self, number: int) -> torch.Tensor:
        """Logits [row, last positions, vocabulary] of a batch, with gradients for the adapters."""
        import math

        import torch

        from intarsia.sites import resume

        start, shape = self._starts[number], self._shapes[number]
        stored = torch.tensor(self._states[start : start + math.prod(shape)]).view(shape)
        state = stored.to(self._model.device, self._model.dtype)
        return resume(
            self._model, self._batch(number), self._first - 1, state=state, grad=True, logits_to_keep=self._keep
        ).logits

    def close(self) -> None:
        """Give the file back."""
        del self._states
        self._file.close()

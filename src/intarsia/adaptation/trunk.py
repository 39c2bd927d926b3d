"""The frozen trunk: with adapters on the upper blocks only, the states that enter the first adapted block never change.
They are computed once and stored; every epoch, and every method, then runs the upper blocks alone.

Cost per token and epoch, for N parameters in L blocks of which the lower k are frozen: 4N(1 - k/L) instead of
2N + 2N(1 - k/L), after 2N k/L once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, IntarsiaError
from intarsia.measure.likelihood import accepts, given, left_padded, length_batches, shares_prefixes
from intarsia.models.weights import weights_key
from intarsia.progress import track
from intarsia.training.lora import first_block

if TYPE_CHECKING:
    import numpy as np
    import torch

    from intarsia.models import Model

TOKENS = 1024  # padded tokens in one forward while states are computed


class Overflow(IntarsiaError):
    """States do not fit the precision they are to be stored in."""


@dataclass
class Prefix:
    """Keys and values of the first `count` tokens, in the blocks above the trunk; for one call of `logits`."""

    cache: Any
    count: int


class Trunk:
    """States that enter block `first`, one stretch a row of token ids, in a file.

    - dtype: what they are stored in, `float32` or `float16`.
    - folder: keep them there for later runs, of this model alone; default: a temporary file."""

    def __init__(self, model: Model, first: int, dtype: str, folder: Path | None = None):
        import numpy as np

        self.model, self.first, self.folder = model, first, folder
        self._dtype = np.dtype(dtype)
        self._width = model.config.get_text_config().hidden_size
        self._accepts = accepts(model.network)
        self._places: dict[str, tuple[int, int]] = {}  # of a row: where it begins in the file, and its tokens
        self._index: Path | None = None
        if folder is None:
            self._file: Any = tempfile.TemporaryFile(prefix="intarsia-trunk-")  # noqa: SIM115 - lives with the trunk
            return
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{weights_key(model)}-{first}-{dtype}"
        self._index = folder / f"{stem}.json"
        self._file = (folder / f"{stem}.bin").open("a+b")

    @classmethod
    def of(cls, model: Model, dtype: str, layers_from: float, folder: Path | None = None) -> Trunk | None:
        """The trunk that settings ask for; None when `dtype` is `off`.

        Raises `BadInput` when the adapters begin at the first block: nothing below them is frozen."""
        if dtype == "off":
            return None
        first = first_block(model.network, layers_from)
        if first == 0:
            raise BadInput("trunk_cache needs frozen blocks below the adapters: set layers_from (0.5: the upper half)")
        return cls(model, first, dtype, folder)

    def fill(self, rows: Iterable[Sequence[int]]) -> None:
        """Compute the states of rows of token ids that are not there yet.

        In a folder one process does so at a time: the others find what it has computed."""
        if self._index is None:
            self._compute(rows)
            return
        from filelock import FileLock

        with FileLock(self._index.with_suffix(".lock")):
            if self._index.is_file():
                self._places = {key: tuple(place) for key, place in json.loads(self._index.read_text()).items()}
            self._compute(rows)
            part = self._index.with_suffix(".part")
            part.write_text(json.dumps(self._places))
            part.replace(self._index)

    def _compute(self, rows: Iterable[Sequence[int]]) -> None:
        import torch

        from intarsia.sites import read

        new = {key: list(row) for row in rows if (key := _row_key(row)) not in self._places}
        keys = list(new)
        site = f"layers.{self.first - 1}.resid_post"
        if not keys:
            return
        for numbers in track(length_batches([len(new[key]) for key in keys], TOKENS), "reading the frozen trunk"):
            ids = [new[keys[i]] for i in numbers]
            with torch.no_grad():
                states = read(self.model, self._inputs(ids), site)[site].float().cpu().numpy()
            for row, state in zip(ids, states, strict=True):
                self.put(row, state[-len(row) :])
        self._file.flush()

    def put(self, row: Sequence[int], state: np.ndarray) -> None:
        """Store the states [token, width] that enter block `first`, of a row whose states were read elsewhere. Raises
        `Overflow` where the precision does not hold them."""
        import numpy as np

        if (key := _row_key(row)) in self._places:
            return
        with np.errstate(over="ignore"):  # what is too large is told of below
            kept = state.astype(self._dtype)
        if not np.isfinite(kept).all():
            raise Overflow("states of the frozen blocks are too large for float16: give trunk_cache float32")
        at = self._file.seek(0, 2)
        self._file.write(kept.tobytes())
        self._places[key] = at, len(row)

    def logits(
        self, ids: Sequence[Sequence[int]], keep: int, *, grad: bool = True, after: Prefix | None = None
    ) -> torch.Tensor:
        """Logits [row, last `keep` positions, vocabulary] of rows that were filled, their ends aligned; with gradients
        for the adapters.

        - after: tokens that all rows begin with, which were run by `prefix` and are not run again."""
        import torch

        from intarsia.sites import resume

        known = 0 if after is None else after.count
        rest = [list(row)[known:] for row in ids]
        inputs, more = self._inputs(rest, known), {}
        if after is not None:
            after.cache.batch_repeat_interleave(len(ids))
            more = {"past_key_values": after.cache, "use_cache": True}
            mask = inputs["attention_mask"]
            inputs["attention_mask"] = torch.cat([mask.new_ones(len(mask), known), mask], 1)
        state = self._states(ids, known)
        return resume(self.model, inputs, self.first - 1, state=state, grad=grad, logits_to_keep=keep, **more).logits

    def final(self, ids: Sequence[Sequence[int]], *, grad: bool = True) -> torch.Tensor:
        """States [row, token, width] that the head reads, of rows that were filled, their ends aligned."""
        from intarsia.sites import resume

        return resume(
            self.model, self._inputs(ids), self.first - 1, state=self._states(ids, 0), grad=grad, logits_to_keep=1,
            output_hidden_states=True, use_cache=False,
        ).hidden_states[-1]  # fmt: skip

    def prefix(self, row: Sequence[int], count: int, *, grad: bool = True) -> Prefix:
        """Run the first `count` tokens of a row that was filled, for all rows that begin with them."""
        from intarsia.sites import resume, upper_cache

        cache = upper_cache(self.first - 1)
        resume(
            self.model, self._inputs([list(row)[:count]], 0), self.first - 1, state=self._states([row], 0)[:, :count],
            grad=grad, logits_to_keep=1, past_key_values=cache, use_cache=True,
        )  # fmt: skip
        return Prefix(cache, count)

    @property
    def shares(self) -> bool:
        """Whether tokens that rows begin with can be run once for all of them."""
        return shares_prefixes(self.model)

    def _states(self, ids: Sequence[Sequence[int]], known: int) -> torch.Tensor:
        """Stored states [row, token, width] of rows from token `known` on, their ends aligned."""
        import numpy as np
        import torch

        width = max(map(len, ids)) - known
        stored = np.zeros((len(ids), width, self._width), self._dtype)
        size = self._width * self._dtype.itemsize
        for row, state in zip(ids, stored, strict=True):
            at, count = self._places[_row_key(row)]
            self._file.seek(at + known * size)
            flat = np.frombuffer(self._file.read((count - known) * size), self._dtype)
            state[width - count + known :] = flat.reshape(count - known, self._width)
        return torch.from_numpy(stored).to(self.model.device, self.model.dtype)

    def _inputs(self, ids: Sequence[Sequence[int]], known: int = 0) -> dict[str, torch.Tensor]:
        batch = left_padded(ids, getattr(self.model.tokenizer, "pad_token_id", None) or 0)
        batch["position_ids"] += known
        return {name: value.to(self.model.device) for name, value in given(batch, self._accepts).items()}

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _row_key(ids: Sequence[int]) -> str:
    return hashlib.blake2b(" ".join(map(str, ids)).encode(), digest_size=16).hexdigest()

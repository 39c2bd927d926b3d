"""`Activations`: what was read - an ordered mapping from site to tensor, with the tokens it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from intarsia.errors import BadInput, did_you_mean
from intarsia.sites.inputs import Batch


@dataclass
class Activations(Mapping[str, Tensor]):
    """Site name -> tensor [batch, token, ...], in the order asked for.

    - batch: what the network was fed, so that `resume` can go on from here.
    - extras: what blocks returned beside the stream (T5's position bias), by site prefix; needed to resume.
    - tokenizer: to show tokens as text, when the model has one."""

    tensors: dict[str, Tensor]
    batch: Batch
    extras: dict[str, tuple] = field(default_factory=dict, repr=False)
    tokenizer: Any = field(default=None, repr=False)

    def __getitem__(self, site: str) -> Tensor:
        if site not in self.tensors:
            raise BadInput(f"'{site}' was not read{did_you_mean(site, self.tensors)}")
        return self.tensors[site]

    def __contains__(self, site: object) -> bool:
        return site in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def sites(self) -> list[str]:
        """The names of what was read."""
        return list(self.tensors)

    @property
    def mask(self) -> Tensor:
        """[batch, token] bool: real tokens of the text."""
        if self.batch.mask is None:
            raise BadInput("these activations belong to no text: there is no token mask")
        return self.batch.mask

    @property
    def ids(self) -> Tensor:
        """Token ids [batch, token]."""
        return self.batch.kwargs["input_ids"]

    @property
    def tokens(self) -> list[list[str]]:
        """Each row's real tokens as text (byte-level tokenizers: a token may be part of a character)."""
        if self.tokenizer is None:
            raise BadInput("the model has no tokenizer: use .ids")
        keep = [row[real].tolist() for row, real in zip(self.ids, self.mask, strict=True)]
        return [[self.tokenizer.decode([i]) for i in row] for row in keep]

    def last(self, site: str) -> Tensor:
        """The value at each row's last real token: [batch, ...]."""
        tensor = self[site]
        tower = "decoder" if site == "logits" and self.batch.decoder_mask is not None else site.partition(".")[0]
        mask = self.batch.mask_for(tower, tensor.shape[1]).to(tensor.device)
        last = mask.shape[1] - 1 - mask.long().flip(1).argmax(dim=1)
        return tensor[torch.arange(len(last), device=last.device), last]

    def rows(self, index: Any) -> Activations:
        """Some rows only: a slice, a list of row numbers, or one number."""
        index, size = [index] if isinstance(index, int) else index, self.batch.size

        def cut(value: Any) -> Any:
            return value[index] if isinstance(value, Tensor) and value.shape[:1] == (size,) else value

        return replace(
            self,
            tensors={k: cut(v) for k, v in self.tensors.items()},
            batch=self.batch.rows(index),
            extras={k: tuple(map(cut, v)) for k, v in self.extras.items()},
        )

    def replace(self, site: str, tensor: Tensor) -> Activations:
        """The same with another tensor at one site (to resume from an edited state)."""
        return replace(self, tensors={**self.tensors, site: tensor})

    def to(self, *args: Any, **kwargs: Any) -> Activations:
        """All tensors moved or cast, as `Tensor.to`."""
        return replace(self, tensors={k: v.to(*args, **kwargs) for k, v in self.tensors.items()})

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in list(self.tensors.items())[:3])
        more = f", ... {len(self) - 3} more" if len(self) > 3 else ""
        return f"Activations({shapes}{more})"


def join(parts: list[Activations]) -> Activations:
    """Batches read one after the other as one; shorter ones are padded with zeros on the right of the token axis."""
    if len(parts) == 1:
        return parts[0]
    tensors = {site: _stack([p[site] for p in parts]) for site in parts[0]}
    kwargs: dict[str, Any] = {}
    for key, value in parts[0].batch.kwargs.items():
        kwargs[key] = _stack([p.batch.kwargs[key] for p in parts]) if isinstance(value, Tensor) else value
    masks = [
        _stack([getattr(p.batch, m) for p in parts]) if getattr(parts[0].batch, m) is not None else None
        for m in ("mask", "decoder_mask")
    ]
    return Activations(tensors, Batch(kwargs, masks[0], masks[1]), {}, parts[0].tokenizer)


def _stack(tensors: list[Tensor]) -> Tensor:
    dims = [max(t.shape[d] for t in tensors) for d in range(1, tensors[0].dim())]
    padded = []
    for tensor in tensors:
        if list(tensor.shape[1:]) == dims:
            padded.append(tensor)
            continue
        grown = tensor.new_zeros(tensor.shape[0], *dims)
        grown[tuple(slice(0, n) for n in tensor.shape)] = tensor
        padded.append(grown)
    return torch.cat(padded)

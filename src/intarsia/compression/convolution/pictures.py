"""Pictures as pixels and labels, by the model's own image processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.data.pictures import gallery
from intarsia.errors import BadInput
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model


def pixels_and_labels(model: Model, records: Sequence[Any], who: str) -> tuple[Tensor, Tensor | None]:
    """Pixels [picture, channel, height, width] and labels [picture] of `ImageText` records; no labels (None)
    unless every picture that could be read has one.

    Pictures that cannot be read are left out, with a note. Raises `BadInput` for a model without an image processor and
    for labels that its config does not name."""
    processor = getattr(model.processor, "image_processor", model.processor)
    if processor is None:
        raise BadInput(
            f"{who}: the model has no image processor to make pixels of pictures: wrap(network, processor=...), or use "
            "the functions of intarsia.compression.convolution on pixels"
        )
    known = {str(label): i for i, label in (getattr(model.config, "id2label", None) or {}).items()}
    pictures = gallery(records)
    parts, labels = [], []
    channels = getattr(model.config, "num_channels", 3)
    for _, record, picture in track(pictures, "reading pictures", total=len(records)):
        pixels = processor(picture, return_tensors="pt")["pixel_values"]
        # Pictures are read as RGB; a network of one channel sees their mean.
        parts.append(pixels.mean(1, keepdim=True) if channels == 1 and pixels.shape[1] == 3 else pixels)
        label = getattr(record, "label", None)
        if label is not None and label not in known:
            raise BadInput(f"{who}: the network has no label '{label}' (it has {', '.join(list(known)[:8])})")
        labels.append(None if label is None else known[label])
    pictures.tell()
    if len({part.shape for part in parts}) > 1:
        raise BadInput(f"{who}: the image processor gives pictures of several sizes: set its size")
    pixels = torch.cat(parts).to(model.device, model.dtype)
    if any(label is None for label in labels):
        return pixels, None
    return pixels, torch.tensor(labels, device=model.device)

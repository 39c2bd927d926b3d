"""Pictures as a network takes them: by the model's own image processor, or by one made from its config."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, MissingExtra, Note

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from intarsia.models.model import Model

# A processor of these sizes gives every picture the same shape.
_FIXED = ({"shortest_edge"}, {"height", "width"})


def vision_config(model: Model) -> Any:
    """The config of the part that looks at pictures. Raises `BadInput` for a model that has none."""
    config = model.config
    for name in ("vision_config", "visual_config", "vision_encoder_config"):
        if (found := getattr(config, name, None)) is not None:
            return found
    if getattr(config, "image_size", None) is not None and getattr(config, "patch_size", None) is not None:
        return config
    raise BadInput(
        f"{type(model.network).__name__} has no vision tower, so it takes no pictures: give a vision-language model "
        "(CLIP, SigLIP, BLIP, LLaVA ...) or a vision encoder"
    )


def image_processor(model: Model, **changed: Any) -> Any:
    """The image processor of a model: its own, or one of its family's kind for the size its config names.

    - changed: settings to override (`image_mean`, `image_std`, `size`, `do_center_crop`...).

    One that had to be made says so in a note: which mean and spread the weights were trained with stands nowhere.
    Raises `BadInput` for a model without a vision tower."""
    vision = vision_config(model)
    own = getattr(model.processor, "image_processor", model.processor)
    if own is not None and hasattr(own, "image_mean"):
        if not changed:
            return own
        return type(own)(**{**_settings(own), **changed})
    made, size = _made(model, vision, changed)
    if not changed:
        mean, std = (", ".join(f"{v:.3g}" for v in _listed(getattr(made, key))) for key in ("image_mean", "image_std"))
        warnings.warn(
            f"the model has no image processor: pictures are made {size} pixels and normalised with mean {mean} and "
            f"spread {std}, as {type(made).__name__.removesuffix('ImageProcessorPil')} does",
            Note,
            stacklevel=3,
        )
    return made


def pixels(model: Model, pictures: Sequence[Image | str | Any], processor: Any = None) -> Tensor:
    """Pictures as [picture, channel, height, width] on the model's device and in its dtype.

    - pictures: Pillow images, paths, bytes or records with `image`.
    - processor: an image processor to use instead of the model's (`image_processor`).

    Raises `BadInput` for a model without a vision tower, for a picture that cannot be read, and for a processor that
    cuts pictures into tiles or gives each its own size."""
    given = picture_inputs(model, pictures, processor)
    values = given["pixel_values"]
    if values.dim() != 4 or len(values) != len(pictures):
        raise BadInput(
            f"{type(model.network).__name__} takes pictures as tiles or patches of many sizes "
            f"({'x'.join(map(str, values.shape))} for {len(pictures)}): use picture_inputs"
        )
    return values


def picture_inputs(model: Model, pictures: Sequence[Image | str | Any], processor: Any = None) -> dict[str, Any]:
    """All that the model's image processor gives for pictures (`pixel_values` and, where a family has them, masks and
    grids), on the model's device, floating tensors in its dtype."""
    import torch

    from intarsia.data.pictures import open_picture, source_of

    if not pictures:
        raise BadInput("no pictures given")
    processor = processor if processor is not None else image_processor(model)
    opened = [open_picture(source_of(picture)) for picture in pictures]
    given = processor(images=opened, return_tensors="pt")
    return {
        name: value.to(model.device, _dtype(model, value)) if isinstance(value, torch.Tensor) else value
        for name, value in given.items()
    }


def as_seen(processor: Any, values: Tensor) -> list[Image]:
    """What the network was shown, from `pixels` [picture, 3, height, width]: resized and cropped, in plain colours."""
    import torch
    from PIL import Image as image

    mean, std = (torch.tensor(_listed(getattr(processor, key))).view(-1, 1, 1) for key in ("image_mean", "image_std"))
    if not getattr(processor, "do_normalize", True):
        mean, std = torch.zeros(1), torch.ones(1)
    plain = values.detach().float().cpu() * std + mean
    plain = (plain * 255).round().clamp(0, 255).to(torch.uint8)
    if plain.shape[1] == 1:
        plain = plain.expand(-1, 3, -1, -1)
    return [image.fromarray(one.permute(1, 2, 0).numpy()) for one in plain]


def _dtype(model: Model, value: Tensor) -> torch.dtype:
    return model.dtype if value.dtype.is_floating_point else value.dtype


def _listed(value: Any) -> list[float]:
    return [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]


def _settings(processor: Any) -> dict[str, Any]:
    known = processor.to_dict()
    return {key: value for key, value in known.items() if not key.startswith("_") and not key.endswith("_type")}


def _made(model: Model, vision: Any, changed: dict[str, Any]) -> tuple[Any, str]:
    """A processor of the family's class, and the size it gives in words."""
    from intarsia.models.folders import quiet

    try:
        import PIL  # noqa: F401
    except ImportError:
        raise MissingExtra("pictures", "vision") from None
    with quiet():
        kind = _class(model.config, vision)
        made = kind(**changed)
        size = getattr(vision, "image_size", None)
        default = getattr(made, "size", None)
        keys = {key for key, value in dict(default or {}).items() if value is not None}
        if size is None or keys not in _FIXED or "size" in changed:
            return made, "as large as it sees fit"
        height, width = size if isinstance(size, list | tuple) else (size, size)
        if keys == {"height", "width"}:
            return kind(**{"size": {"height": height, "width": width}, **changed}), f"{width} x {height}"
        square = {"size": {"shortest_edge": min(height, width)}, "crop_size": {"height": height, "width": width}}
        return kind(**{**square, **changed}), f"{width} x {height}"


def _class(config: Any, vision: Any) -> Any:
    import transformers as tf
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    for type_ in (config.model_type, vision.model_type, vision.model_type.removesuffix("_vision_model")):
        name = (IMAGE_PROCESSOR_MAPPING_NAMES.get(type_) or {}).get("pil")
        if name is not None and (found := getattr(tf, name, None)) is not None:
            return found
    return tf.CLIPImageProcessorPil

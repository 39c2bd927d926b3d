"""A picture as a document: what a model that the user names writes about it. No text is read off it (no OCR)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.prompting.data.documents import SourceDocument

if TYPE_CHECKING:
    from intarsia.models import Model

TOKENS = 96
SETTINGS = {"picture": True, "max_new_tokens": TOKENS}


def described(path: Path, name: str, model: Model | None) -> SourceDocument:
    """The document of a picture. What a model wrote is kept on disk by the picture's bytes, so that it is asked once.

    Raises `BadInput` without a model, for one that writes no words, and for a file that is no picture."""
    if model is None:
        raise BadInput(f"{path}: is a picture: name a model that describes it (pictures=load('blip-caption'))")
    from intarsia.adaptation.clips.kept import Kept, Said
    from intarsia.adaptation.clips.writers import writer_of
    from intarsia.data.pictures import open_picture
    from intarsia.models.cache import sha256_of

    writer: Any = writer_of(model, prompt=None, together=False, max_new_tokens=TOKENS, batch_size=1)
    kept = Kept(model, {**SETTINGS, "prompt": writer.prompt})
    place = kept.path(sha256_of(path), None, None)
    said = kept.get(place)
    if said is None:
        (text,) = writer.write([[open_picture(path)]])
        said = Said(text, 0.0, 1, (), False, "")
        kept.put(place, said)
    if not said.text.strip():
        raise BadInput(f"{path}: the model wrote nothing about it")
    suffix = path.suffix.lower().lstrip(".")
    media = f"image/{ {'jpg': 'jpeg', 'tif': 'tiff'}.get(suffix, suffix) }"
    return SourceDocument(
        said.text, name, path.stem, {"described_by": model.identity.source}, media=media
    )  # fmt: skip

"""Models that put pictures into words, behind one call: the frames of some clips in, a text for each clip out.

All go through plain `generate`, greedy, whatever their class:

- chat models (a processor with a chat template: SmolVLM, Qwen-VL, Gemma 3, LLaVA ...) see all frames of a clip in one
  turn, several clips in a batch;
- all others see one frame at a time: captioners (BLIP, GIT, encoder-decoders of pictures), models that answer
  questions, and chat models that were told to. What is said of the frames is joined without repeats."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from intarsia.adaptation.clips.wording import joined, whole
from intarsia.errors import BadInput, first_line
from intarsia.models.folders import quiet
from intarsia.models.pixels import picture_inputs, pixels
from intarsia.models.seeing import image_token, kind_of, question_inputs

if TYPE_CHECKING:
    from PIL.Image import Image

    from intarsia.models import Model

CLIP_PROMPT = (
    "These pictures are frames of one short video, in their order. Describe in two or three plain sentences what can "
    "be seen: the people, what they do, how they look and move, and where they are."
)
FRAME_PROMPT = (
    "Describe in one or two plain sentences what can be seen in this picture: the people, what they do, how they look, "
    "and where they are."
)
LEAST = 16
"""Tokens that there must be room for, at least, where more are asked for."""


class Writer(Protocol):
    """- prompt: what it asks; empty where the model is asked nothing."""

    prompt: str

    def write(self, clips: Sequence[Sequence[Image]]) -> list[str]:
        """A text for each clip, from its frames in order."""
        ...


def writer_of(model: Model, *, prompt: str | None, together: bool, max_new_tokens: int, batch_size: int) -> Writer:
    """What writes with a model.

    - prompt: None: the default of its kind. together: show a chat model all frames of a clip in one turn.
    - batch_size: frames in one batch.

    Raises `BadInput` for a model that takes no pictures or writes no words."""
    if model.tokenizer is None:
        raise BadInput("this model has no tokenizer: what it writes cannot be read")
    if getattr(model.processor, "chat_template", None) and hasattr(model.processor, "image_processor"):
        _must_write(model)
        default = CLIP_PROMPT if together else FRAME_PROMPT
        chat = ChatWriter(model, default if prompt is None else prompt, max_new_tokens)
        return chat if together else OneByOne(chat, batch_size)
    return OneByOne(FrameWriter(model, prompt, max_new_tokens), batch_size)


def _must_write(model: Model) -> None:
    name = type(model.network).__name__
    if model.config.model_type == "vision-encoder-decoder":
        return
    if (kind := kind_of(model)) != "answer":
        does = {"dual": "compares pictures and texts", "class": "names classes", "encoder": "gives vectors"}[kind]
        raise BadInput(
            f"{name} {does} and writes no words: give a captioning model (BLIP ...) or one to chat with about pictures "
            "(SmolVLM, LLaVA ...)"
        )


class ChatWriter:
    """All pictures of a clip in one turn of a chat, and one question about them."""

    def __init__(self, model: Model, prompt: str, max_new_tokens: int):
        if not prompt.strip():
            raise BadInput("prompt: a chat model must be asked something, given: an empty text")
        self.model, self.prompt, self.max_new_tokens = model, prompt, max_new_tokens

    def write(self, clips: Sequence[Sequence[Image]]) -> list[str]:
        processor: Any = self.model.processor
        chats = [
            [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image", "image": picture} for picture in pictures),
                        {"type": "text", "text": self.prompt},
                    ],
                }
            ]
            for pictures in clips
        ]
        # Rows of a batch end where the answer begins, so they are padded on the left.
        side, processor.tokenizer.padding_side = processor.tokenizer.padding_side, "left"
        try:
            with quiet():
                inputs = processor.apply_chat_template(
                    chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
                    processor_kwargs={"padding": True},
                )  # fmt: skip
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise BadInput(
                f"{type(processor).__name__} takes no {max(map(len, clips))} pictures in one turn "
                f"({first_line(error, 120)}): set together to no"
            ) from error
        finally:
            processor.tokenizer.padding_side = side
        return generated(self.model, inputs, self.max_new_tokens, "give fewer frames, or smaller ones (side)")


class FrameWriter:
    """One picture a row: a caption, or the answer to a question about it."""

    def __init__(self, model: Model, prompt: str | None, max_new_tokens: int):
        _must_write(model)
        self.model, self.max_new_tokens = model, max_new_tokens
        self.bare = model.config.model_type == "vision-encoder-decoder"  # pictures in, words out, nothing asked
        asked = not self.bare and (bool(image_token(model)) or "QuestionAnswering" in type(model.network).__name__)
        if self.bare and prompt:
            raise BadInput(
                f"{type(model.network).__name__} captions pictures, it is asked nothing: leave out the prompt"
            )
        self.prompt = (FRAME_PROMPT if asked else "") if prompt is None else prompt
        if asked and not self.prompt.strip():
            raise BadInput(f"{type(model.network).__name__} must be asked something, given: an empty prompt")

    def write(self, clips: Sequence[Sequence[Image]]) -> list[str]:
        pictures = [picture for (picture,) in clips]
        return generated(self.model, self._inputs(pictures), self.max_new_tokens, "give a shorter prompt")

    def _inputs(self, pictures: list[Image]) -> Any:
        processor: Any = self.model.processor
        if self.bare:
            if processor is None:
                raise BadInput("this model has no image processor, and its config does not say what pictures it wants")
            owner = getattr(processor, "image_processor", processor)
            return {"pixel_values": picture_inputs(self.model, pictures, owner)["pixel_values"]}
        if hasattr(processor, "image_processor") and hasattr(processor, "tokenizer"):
            asked = {"text": [self.prompt] * len(pictures), "padding": True} if self.prompt else {}
            try:
                return processor(images=pictures, **asked, return_tensors="pt")
            except (ValueError, TypeError, IndexError) as error:
                raise BadInput(
                    f"{type(processor).__name__} refuses a picture {'with' if asked else 'without'} this prompt "
                    f"({first_line(error, 120)}): give another prompt"
                ) from error
        try:
            values = pixels(self.model, pictures)
        except BadInput as error:
            raise BadInput(
                f"{first_line(error)}; that takes the model's own processor, which is not there or could not be loaded "
                "(some need torchvision)"
            ) from None
        if not self.prompt:
            return {"pixel_values": values}
        return question_inputs(self.model, values, [self.prompt] * len(pictures))


class OneByOne:
    """A writer that is shown one frame at a time; what it says of a clip's frames is joined."""

    def __init__(self, writer: ChatWriter | FrameWriter, batch_size: int):
        self.writer, self.batch_size, self.prompt = writer, batch_size, writer.prompt

    def write(self, clips: Sequence[Sequence[Image]]) -> list[str]:
        frames = [[picture] for pictures in clips for picture in pictures]
        said: list[str] = []
        for start in range(0, len(frames), self.batch_size):
            said += self.writer.write(frames[start : start + self.batch_size])
        rest = iter(said)
        return [joined(list(islice(rest, len(pictures)))) for pictures in clips]


class _Steps(StoppingCriteria):
    """Counts the tokens that are written: whether the prompt is among what `generate` gives depends on the network."""

    count = 0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        self.count += 1
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def generated(model: Model, inputs: Any, max_new_tokens: int, mend: str) -> list[str]:
    """Greedy continuations of a batch, one text a row, each a whole sentence where one is there.

    Raises `BadInput` (ending with `mend`) where the network's context has no room for an answer behind the prompt."""
    network: Any = model.network
    ready = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }
    asked = ready["input_ids"].shape[1] if "input_ids" in ready else 1
    room = max_new_tokens if model.context_length is None else model.context_length - asked
    if room < min(max_new_tokens, LEAST):
        raise BadInput(
            f"the prompt with its pictures is {asked:,} tokens, the model takes {model.context_length:,}, which leaves "
            f"no room for {max_new_tokens} more: {mend}"
        )
    max_new_tokens = min(max_new_tokens, room)
    steps = _Steps()
    # One beam and no sampling, whatever the model's own generation settings say.
    with torch.inference_mode(), quiet():
        out = network.generate(
            **ready, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, return_dict_in_generate=False,
            stopping_criteria=StoppingCriteriaList([steps]),
        )  # fmt: skip
    written = out[:, out.shape[1] - steps.count :].cpu()
    tokenizer: Any = model.tokenizer
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    special = set(tokenizer.all_special_ids)
    full = steps.count >= max_new_tokens
    return [whole(text, full and int(row[-1]) not in special) for text, row in zip(texts, written, strict=True)]

"""What a network can be asked about pictures, whatever its class: embeddings, classes, or answers in words.

Three kinds, told from the network itself:

- `dual`: two towers whose embeddings meet in one space (CLIP, SigLIP): a picture is near the text that fits it.
- `answer`: writes words about a picture and a question (BLIP, LLaVA and their like).
- `class`: names one of fixed classes (ViT and its like).
- `encoder`: gives rows for others to use (a bare vision tower)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from intarsia.errors import BadInput
from intarsia.models.pixels import vision_config

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.models.model import Model

Kind = Literal["dual", "answer", "class", "encoder"]
PLACE = "<image>"
"""Where the picture goes in a prompt."""
_PADDED = ("siglip", "siglip2")  # trained with every text padded to the full length, and read at the last place


def kind_of(model: Model) -> Kind:
    """What the network can be asked. Raises `BadInput` for one that takes no pictures."""
    vision_config(model)
    network = model.network
    if (hasattr(network, "get_image_features") and hasattr(network, "get_text_features")) or _projects(network):
        return "dual"
    if network.can_generate() or hasattr(network, "text_decoder"):
        return "answer"
    heads = ("ForImageClassification",)
    return "class" if type(network).__name__.endswith(heads) else "encoder"


def _projects(network: Any) -> bool:
    """BLIP for retrieval: two projections of first rows, and no method that says so."""
    return all(hasattr(network, name) for name in ("vision_proj", "text_proj", "vision_model", "text_encoder"))


def embed_pictures(model: Model, values: Tensor) -> Tensor:
    """[picture, width] embeddings of `pixels`, not normalised: the joint space of a dual encoder, else the tower's
    pooled row (where it pools none, the mean of its rows)."""
    network: Any = model.network
    if _projects(network):
        return network.vision_proj(network.vision_model(pixel_values=values).last_hidden_state[:, 0])
    if kind_of(model) == "dual":
        return _pooled(network.get_image_features(pixel_values=values))
    # `get_image_features` of networks that write answers gives rows for the decoder: their tower is asked itself.
    return _pooled(vision_model(model)(pixel_values=values))


def vision_model(model: Model) -> Any:
    """The module that takes `pixel_values` and gives rows: the vision tower, or the network that is nothing else."""
    network: Any = model.network
    for owner in (network, getattr(network, "model", None)):
        for name in ("vision_model", "vision_tower", "visual", "image_encoder"):
            if owner is not None and (found := getattr(owner, name, None)) is not None:
                return found
    return getattr(network, network.base_model_prefix, network)


def _pooled(output: Any) -> Tensor:
    if hasattr(output, "shape"):
        return output
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None and hasattr(pooled, "shape"):
        return pooled
    return output.last_hidden_state.mean(dim=1)


def text_inputs(model: Model, texts: Sequence[str]) -> dict[str, Tensor]:
    """Ids and mask for the text tower of a dual encoder; texts that are too long are cut.

    Families that were trained on texts padded to the full length get them so, without a mask."""
    limit = model.context_length
    if model.config.model_type in _PADDED and model.tokenizer is not None:
        given = model.tokenizer(
            list(texts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        )
        return {"input_ids": given["input_ids"].to(model.device)}
    given = model.encode(texts, max_length=limit)
    return {name: given[name] for name in ("input_ids", "attention_mask") if name in given}


def embed_texts(model: Model, texts: Sequence[str]) -> Tensor:
    """[text, width] embeddings of a dual encoder's text tower, not normalised."""
    if kind_of(model) != "dual":
        raise BadInput(f"{type(model.network).__name__} has no text tower beside its vision tower: it embeds no texts")
    network: Any = model.network
    if _projects(network):
        return network.text_proj(network.text_encoder(**text_inputs(model, texts)).last_hidden_state[:, 0])
    return _pooled(network.get_text_features(**text_inputs(model, texts)))


def prompts(model: Model, questions: Sequence[str], template: str = "") -> list[str]:
    """Each question as the network wants it, the picture's place once in each where its ids have one.

    - template: a prompt with `{question}` and, for a network whose pictures lie among the words, `<image>`; empty: the
      model's chat template, or the bare question behind the picture."""
    place = image_token(model)
    if template:
        if "{question}" not in template or (place and PLACE not in template):
            wanted = "{question}" + (f" and {PLACE}" if place else "")
            raise BadInput(f"the template {template!r} lacks {wanted}")
        return [template.replace("{question}", question).replace(PLACE, place or "") for question in questions]
    if not place:
        return list(questions)
    chat = getattr(model.processor, "chat_template", None) or getattr(model.tokenizer, "chat_template", None)
    if not chat:
        return [f"{place}\n{question}\n" for question in questions]
    return [_chat(model, place, question) for question in questions]


def _chat(model: Model, place: str, question: str) -> str:
    if getattr(model.processor, "chat_template", None):
        content: Any = [{"type": "image"}, {"type": "text", "text": question}]
        owner: Any = model.processor
    else:
        content, owner = f"{place}\n{question}", model.tokenizer
    return owner.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)


def image_token(model: Model) -> str:
    """How the place of a picture is written in this model's prompts; empty where pictures do not lie among words."""
    number = image_token_id(model)
    if number is None:
        return ""
    if model.tokenizer is None:
        raise BadInput("this model has no tokenizer: questions cannot be put to it")
    token = model.tokenizer.convert_ids_to_tokens(number)
    if token is None:
        raise BadInput(f"the tokenizer has no token {number}, which the config names as the place of a picture")
    return token


def image_token_id(model: Model) -> int | None:
    """The id that stands for a picture's rows in a prompt, or None."""
    from intarsia.sites.towers import image_token as of_config

    return of_config(model.config)


def places(model: Model) -> int:
    """How many rows a picture takes in the prompt of a network of LLaVA's kind."""
    vision = vision_config(model)
    size, patch = vision.image_size, vision.patch_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    count = (height // patch) * (width // patch)
    full = getattr(model.config, "vision_feature_select_strategy", "default") == "full"
    return count + 1 if full else count


def question_inputs(
    model: Model, values: Tensor, questions: Sequence[str], template: str = "", max_tokens: int | None = None
) -> dict[str, Any]:
    """Keyword arguments for `network.generate` (or its forward): one picture of `pixels` and one question a row.

    Where pictures lie among the words (LLaVA) the prompt holds as many places as the picture has rows, and rows are
    padded on the left; else (BLIP) the question stands alone. Raises `BadInput` for a network that answers nothing."""
    if kind_of(model) != "answer":
        raise BadInput(f"{type(model.network).__name__} writes no answers: a BLIP- or LLaVA-like model is wanted")
    if len(values) != len(questions):
        raise BadInput(f"{len(values)} pictures and {len(questions)} questions: give one question for each picture")
    said = prompts(model, questions, template)
    place = image_token(model)
    if not place:
        given = model.encode(said, max_length=max_tokens or model.context_length)
        return {**{k: given[k] for k in ("input_ids", "attention_mask")}, "pixel_values": values}
    import torch

    number, count = image_token_id(model), places(model)
    rows = []
    tokenizer: Any = model.tokenizer
    for text in said:
        before, found, after = text.partition(place)
        if not found:
            raise BadInput(f"the prompt {text!r} has no place for the picture ({place})")
        head = tokenizer(before, add_special_tokens=True)["input_ids"]
        head = head[:-1] if head and head[-1] == tokenizer.eos_token_id else head
        if head[:2] == [tokenizer.bos_token_id] * 2:
            head = head[1:]  # the chat template wrote it, and the tokenizer once more
        tail = tokenizer(after, add_special_tokens=False)["input_ids"]
        rows.append([*head, *[number] * count, *tail])
    width, fill = max(map(len, rows)), tokenizer.pad_token_id or 0
    ids = torch.tensor([[fill] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": values}


@dataclass(frozen=True)
class Answers:
    """What a network wrote: `texts`, and `first` [row, vocabulary], the log-probabilities of the first token."""

    texts: list[str]
    first: Tensor


def answer(model: Model, inputs: dict[str, Any], max_new_tokens: int = 8) -> Answers:
    """Greedy answers to one batch of `question_inputs`."""
    import torch

    network: Any = model.network
    # One beam and no sampling, whatever the model's own generation settings say.
    with torch.inference_mode():
        out = network.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
    written = out.sequences[:, out.sequences.shape[1] - len(out.logits) :]
    texts = model.tokenizer.batch_decode(written, skip_special_tokens=True)  # type: ignore[union-attr]
    return Answers([text.strip() for text in texts], out.logits[0].float().log_softmax(-1))


def question_batches(
    model: Model, questions: Sequence[str], batch_size: int = 16, template: str = ""
) -> list[list[int]]:
    """Rows of `questions` that may share a batch: each gets the answer it would get alone.

    BLIP's decoder reads padded places of a question as if they were words, so only questions of one length go together
    there; places in LLaVA's prompts are masked."""
    said = prompts(model, questions, template)
    if image_token(model):
        return [list(range(len(said)))[i : i + batch_size] for i in range(0, len(said), batch_size)]
    lengths: dict[int, list[int]] = {}
    for row, ids in enumerate(model.tokenizer(said)["input_ids"] if said else []):  # type: ignore[misc]
        lengths.setdefault(len(ids), []).append(row)
    return [rows[i : i + batch_size] for rows in lengths.values() for i in range(0, len(rows), batch_size)]

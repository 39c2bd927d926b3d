"""Label likelihood: how probable each label's words are after the prompt. No generation, no parsing, always a
distribution.

Source: Zhao et al. 2021, "Calibrate Before Use" (content-free prompt); Fei et al. 2023, "Mitigating Label Biases"
(calibration by the batch's own mean)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.data import LabelledText
from intarsia.errors import BadInput
from intarsia.measure import trie as tries
from intarsia.measure.prompts import encode_prompts
from intarsia.progress import track

if TYPE_CHECKING:
    import torch

    from intarsia.measure.labels import LabelTask
    from intarsia.models import Model

TOKENS_PER_BATCH = 2048


@dataclass(frozen=True)
class LabelScores:
    """Scores of texts under labels.

    - raw: [text, label] float64: log probability of the label's path through the trie; each row sums to one in exp.
    - scores: [text, label]: raw plus bias, calibrated, plus tau * log prior (what the task asks for).
    - probabilities: [text, label]: softmax of scores / temperature.
    - mass: [text]: how much of the model's whole next-token distribution lies on the labels' first tokens. Near zero
      means that the cue does not make the model think of these words.
    - cut: how many texts were shortened to fit."""

    labels: tuple[str, ...]
    raw: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    mass: np.ndarray
    cut: int = 0

    @property
    def best(self) -> np.ndarray:
        """[text]: number of the most probable label."""
        return self.scores.argmax(1)


def score(
    model: Model,
    task: LabelTask,
    texts: Sequence[str | LabelledText],
    *,
    calibration: str | None = None,
    runtime: Any = None,
) -> LabelScores:
    """Score every label for every text.

    - calibration: overrides the task's (`batch`, `content-free`, `none`). With `batch` a text's score depends on the
      texts scored with it: score a whole set in one call.
    - runtime: another engine that holds the same model (`intarsia.models.runtime.open_runtime`), used in its place.

    Raises `BadInput` for no texts, a network that is not a causal language model, or labels that cannot be told
    apart."""
    records = [LabelledText(text, "") if isinstance(text, str) else text for text in texts]
    if not records:
        raise BadInput("there are no texts to score")
    raw, mass, cut = _raw(model, task, records, runtime)
    return calibrated(task, raw, mass, cut, calibration, lambda: _raw(model, task, [LabelledText("", "")], runtime)[0])


def calibrated(
    task: LabelTask, raw: np.ndarray, mass: np.ndarray, cut: int, calibration: str | None,
    empty: Callable[[], np.ndarray],
) -> LabelScores:  # fmt: skip
    """What `score` makes of raw scores [text, label].

    - empty: gives the raw scores of texts without content, [text or 1, label]."""
    calibration = calibration or task.calibration
    scores = raw + np.asarray(task.bias or 0.0)
    if calibration == "batch":
        scores = scores - scores.mean(0)
    elif calibration == "content-free":
        scores = scores - (empty() + np.asarray(task.bias or 0.0))
    elif calibration != "none":
        raise BadInput(f"unknown calibration '{calibration}': batch, content-free or none")
    if (log_prior := task.log_prior()) is not None:
        scores = scores + np.asarray(log_prior)
    return LabelScores(tuple(task.labels), raw, scores, softmax(scores / task.temperature), mass, cut)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis, in the input's precision."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis, in the input's precision."""
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def check_causal(model: Model) -> None:
    """Raise `BadInput` unless the network predicts the next token."""
    from transformers import GenerationMixin

    encoder_decoder = getattr(model.config, "is_encoder_decoder", False)
    if (
        encoder_decoder
        or not isinstance(model.network, GenerationMixin)
        or model.network.get_output_embeddings() is None
    ):
        raise BadInput(f"this needs a causal language model; {type(model.network).__name__} is none")


def _raw(
    model: Model, task: LabelTask, records: list[LabelledText], runtime: Any
) -> tuple[np.ndarray, np.ndarray, int]:
    if runtime is None:
        check_causal(model)
    if model.tokenizer is None:
        raise BadInput("a label task needs text: this model has no tokenizer (wrap(network, tokenizer))")
    trie = tries.of_task(task, model.tokenizer)
    prompts = encode_prompts(model, task, records, room=trie.depth + 1)
    raw = np.zeros((len(records), len(task.labels)))
    mass = np.zeros(len(records))
    batches = length_batches([len(row) for row in prompts.ids], TOKENS_PER_BATCH if runtime is None else 1)
    for rows in track(batches, "scoring labels"):
        ids = [prompts.ids[row] for row in rows]
        if runtime is None:
            nodes = node_logits(model, trie, ids)
        else:
            nodes = [_runtime_node(runtime, ids[0], node) for node in trie.nodes]
        raw[rows], mass[rows] = path_scores(trie, nodes)
    return raw, mass, prompts.cut


def path_scores(trie: tries.Trie, nodes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities [row, label] of the labels' paths, and the mass [row] on their first tokens, from the logits
    [row, vocabulary] at every node of the trie."""
    rows = len(nodes[0])
    raw, mass = np.zeros((rows, len(trie.sequences))), np.full(rows, np.nan)
    for node, logits in zip(trie.nodes, nodes, strict=True):
        logits = logits - logits.max(-1, keepdims=True)
        branches = logits[:, list(node.branches)]
        whole = np.log(np.exp(branches).sum(-1, keepdims=True))
        for branch, members in enumerate(node.members):
            raw[:, members] += branches[:, branch : branch + 1] - whole[:, :1]
        if not node.path:  # where all labels begin alike, the first token says nothing about them
            mass = np.exp(whole[:, 0] - np.log(np.exp(logits).sum(-1)))
    return raw, mass


def node_logits(model: Model, trie: tries.Trie, ids: Sequence[Sequence[int]], after: Any = None) -> list[np.ndarray]:
    """Logits [row, vocabulary] float64 at every node of the trie, for one batch of prompts.

    - after: keys and values of tokens that stand before all of them, of one row; it stays as it is."""
    import copy

    import torch

    batch = left_padded(ids, model.tokenizer.pad_token_id or 0)
    keys, known, more = accepts(model.network), 0, {}
    if after is not None:
        cache = copy.deepcopy(after)  # a forward writes into its cache
        cache.batch_repeat_interleave(len(ids))
        known, more = after.get_seq_length(), {"past_key_values": cache}
        batch["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (known, 0), value=1)
        batch["position_ids"] += known
    batch = {name: value.to(model.device) for name, value in batch.items()}
    with torch.inference_mode():
        out = model.network(
            **given(batch, keys), **more, logits_to_keep=1, use_cache=not trie.flat or after is not None
        )
        logits = []
        for node in trie.nodes:
            if not node.path:
                logits.append(out.logits[:, -1].double().cpu().numpy())
                continue
            # The prompt's keys and values are shared by all nodes; hence the copy.
            path = torch.tensor(node.path, device=model.device).expand(len(ids), -1)
            step = torch.arange(len(node.path), device=model.device)
            further = {
                "input_ids": path,
                "attention_mask": torch.cat([batch["attention_mask"], torch.ones_like(path)], 1),
                "position_ids": batch["attention_mask"].sum(1, keepdim=True) + step,
            }
            deeper = model.network(
                **given(further, keys),
                past_key_values=copy.deepcopy(out.past_key_values),
                logits_to_keep=1,
                use_cache=True,
            )
            logits.append(deeper.logits[:, -1].double().cpu().numpy())
    return logits


def _runtime_node(runtime: Any, ids: list[int], node: tries.Node) -> np.ndarray:
    return np.asarray(runtime.logits([*ids, *node.path])[-1], dtype=np.float64)[None]


def left_padded(ids: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """Ids, mask and positions [batch, token], padded on the left, so that the last column is every prompt's end."""
    import torch

    width = max(len(row) for row in ids)
    input_ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        # Written out: absolute position embeddings would else count the padding.
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }


def right_padded(ids: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """Ids and mask [batch, token], padded on the right."""
    import torch

    width = max(len(row) for row in ids)
    return {
        "input_ids": torch.tensor([list(row) + [pad] * (width - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
    }


def accepts(network: Any) -> Callable[[str], bool]:
    """Whether a network's forward takes an argument of a name."""
    import inspect

    names = inspect.signature(network.forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in names.values())
    # Many architectures pass position_ids through **kwargs, others would choke on it: only a named one is sure, except
    # for the inputs that every causal network knows.
    return lambda name: name in names or (open_ended and name in ("input_ids", "attention_mask"))


def given(batch: dict[str, Any], keys: Callable[[str], bool]) -> dict[str, Any]:
    """The entries of a batch that a forward takes."""
    return {name: value for name, value in batch.items() if keys(name)}


def shares_prefixes(model: Model) -> bool:
    """Whether tokens that rows begin with can be run once and kept: where every block attends to all before it."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    window = getattr(config, "sliding_window", None) if not hasattr(config, "layer_types") else None
    return set(kinds) == {"full_attention"} and window is None and accepts(model.network)("position_ids")


def length_batches(lengths: Sequence[int], tokens: int, rows: int = 64) -> list[list[int]]:
    """Row numbers in batches of similar length: at most `tokens` padded tokens and `rows` rows each (at least one)."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and len(batches[-1]) < rows and (len(batches[-1]) + 1) * lengths[i] <= tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches

"""An encoder in ONNX Runtime: states and sentence vectors of an exported folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput, IntarsiaError, MissingExtra, first_line
from intarsia.models.runtime.asking import threads_for

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

FILE, NOTE, FORMAT = "model.onnx", "encoder.json", 1
INPUTS = "input_ids", "attention_mask", "token_type_ids"
STATES = "last_hidden_state"


class OnnxEncoder:
    """An exported encoder, run on the CPU.

    - width: of a state. vocabulary: token ids are below it. context_length: the most tokens of a text; None: any
    - bytes: of the file. threads: CPU threads it computes with"""

    name = "onnx"

    def __init__(self, path: str | Path, threads: int | None = None):
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("running an ONNX model", "export") from None
        self.path = Path(path)
        self.threads = threads_for(threads)
        try:
            said = json.loads((self.path / NOTE).read_text("utf-8"))
            self.inputs: list[str] = said["inputs"]
            self.width, self.vocabulary = int(said["width"]), int(said["vocabulary"])
            self.context_length: int | None = said["context_length"]
            self.bytes = (self.path / FILE).stat().st_size
            newer = said["format"] > FORMAT
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{self.path} holds no whole exported encoder ({first_line(error)}); export it again"
            ) from None
        if newer:
            raise BadInput(f"{self.path} was written by a newer Intarsia: upgrade with pip install -U intarsia")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(self.path / FILE), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise IntarsiaError(f"{self.path} does not open in ONNX Runtime: {first_line(error)}") from None

    def states(self, ids: Any, mask: Any = None, types: Any = None) -> np.ndarray:
        """The last hidden states, float32 [text, token, width], of token ids [text, token].

        - mask: [text, token], 1 where a token is real; default: all are. types: of tokens; default: 0.

        Raises `BadInput` for ids outside of the vocabulary, texts longer than the context, and other shapes."""
        ids = np.asarray(ids, np.int64)
        given = {"input_ids": ids}
        for name, value, default in zip(INPUTS[1:], (mask, types), (1, 0), strict=True):
            given[name] = np.full_like(ids, default) if value is None else np.asarray(value, np.int64)
        if ids.ndim != 2 or not ids.size or any(value.shape != ids.shape for value in given.values()):
            raise BadInput(f"token ids, mask and types [text, token] of one shape are wanted, given {ids.shape}")
        if ids.min() < 0 or ids.max() >= self.vocabulary:
            raise BadInput(
                f"token ids from {ids.min()} to {ids.max()} are not below the vocabulary's {self.vocabulary}"
            )
        if self.context_length is not None and ids.shape[1] > self.context_length:
            raise BadInput(f"{ids.shape[1]} tokens are more than the context of {self.context_length}")
        (states,) = self._session.run([STATES], {name: given[name] for name in self.inputs})
        return states

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer that was exported with it, if the model had one."""
        from intarsia.models.folders import load_tokenizer

        return load_tokenizer(self.path)

    def encode(self, texts: Sequence[str], *, max_length: int | None = None) -> BatchEncoding:
        """Token ids and mask of a batch, arrays int64 [text, token]. Raises `BadInput` without a tokenizer."""
        if self.tokenizer is None:
            raise BadInput(f"{self.path} was exported without a tokenizer: give token ids to `states`")
        return self.tokenizer(
            list(texts), return_tensors="np", padding=True, padding_side="right", truncation=max_length is not None,
            max_length=max_length, verbose=False,
        )  # fmt: skip

    def embed(self, texts: Sequence[str], *, longest: int | None = None) -> np.ndarray:
        """Texts as vectors [text, width] of length one: `intarsia.models.embedding.embed`, in this engine."""
        from intarsia.models.embedding import LONGEST, embed

        return embed(self, texts, longest=longest or LONGEST)

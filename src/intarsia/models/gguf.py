"""GGUF files: checked, then converted once to a plain Hugging Face folder in the cache.

The folder is named by the file's sha256; the second load is an ordinary safetensors load. Weights are kept as float32,
which holds every GGUF type exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, first_line
from intarsia.models import cache, folders
from intarsia.models.beats import beats
from intarsia.models.gguf_header import read_header
from intarsia.progress import tell

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The names llama.cpp gives to vocabularies whose digits stand alone before the GPT-2 split.
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}


def convert(file: Path, digest: str | None = None) -> Path:
    """The cache folder that holds `file` as safetensors, config and tokenizer; made on the first call.

    `digest` is the file's sha256 when it is known. Raises `BadInput` when the file is cut off, damaged or of an
    architecture that transformers cannot read from GGUF, `IntarsiaError` when the disk is full."""
    digest = digest or cache.sha256_of(file)
    with cache.entry(f"gguf/{digest[:32]}") as (final, part):
        if part is not None:
            _convert(file, part, read_header(file).fields)
            cache.write_facts(part, source=f"gguf:{file.name}", sha256=digest)
    return final


def load_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer inside a GGUF file: of the folder that it was converted to, if it was; else it is read alone.

    Raises `BadInput` where transformers cannot."""
    from types import SimpleNamespace

    import transformers as tf

    converted = cache.cache_dir() / f"gguf/{cache.sha256_of(file)[:32]}"
    if converted.is_dir() and (found := folders.load_tokenizer(converted)) is not None:
        return found
    fields = read_header(file).fields
    length = fields.get(f"{fields.get('general.architecture')}.context_length")
    with folders.quiet():
        try:
            tokenizer = tf.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        except (ValueError, KeyError, NotImplementedError, RuntimeError, TypeError, ImportError, OSError) as error:
            raise BadInput(f"transformers cannot read the tokenizer in {file}: {first_line(error, 200)}") from error
    mend_tokenizer(tokenizer, fields, SimpleNamespace(max_position_embeddings=length and int(length)))
    return folders.forget_loading(tokenizer)


def _convert(file: Path, to: Path, fields: dict[str, Any]) -> None:
    from transformers import modeling_gguf_pytorch_utils as reader

    task = f"converting {file.name}"
    # transformers draws its own bar, whatever its settings: show the beats where the caller wants them instead.
    bar, reader.tqdm = reader.tqdm, beats(task)
    try:
        _convert_quietly(file, to, fields, task)
    finally:
        reader.tqdm = bar
    tell(task, 1, 1, finished=True)


def _convert_quietly(file: Path, to: Path, fields: dict[str, Any], task: str) -> None:
    import torch
    import transformers as tf

    where = dict(gguf_file=file.name, local_files_only=True)
    with folders.quiet():
        tell(task, 0)
        try:
            config = tf.AutoConfig.from_pretrained(file.parent, **where)
            network, report = folders.network_class(config, None).from_pretrained(
                file.parent, dtype=torch.float32, output_loading_info=True, **where
            )
            tokenizer = tf.AutoTokenizer.from_pretrained(file.parent, **where)
        except (ValueError, KeyError, NotImplementedError, RuntimeError, TypeError, ImportError) as error:
            architecture = fields.get("general.architecture", "unknown")
            first = first_line(error, 200)
            raise BadInput(f"transformers cannot read {file} (GGUF architecture '{architecture}'): {first}") from error
        if missing := sorted(report["missing_keys"]):
            raise BadInput(f"{file} lacks {len(missing)} weights of {type(network).__name__} (first: {missing[0]})")
        strip_quantizer(network)
        _clean_config(network.config)
        mend_tokenizer(tokenizer, fields, network.config)
        network.save_pretrained(to)
        folders.forget_loading(tokenizer).save_pretrained(to)
        cache.share_modes(to)


def strip_quantizer(network: Any) -> None:
    """Make a network that transformers read from GGUF an ordinary one: it counts as quantized and refuses to be saved.

    Its weights are plain floats already; only the marks go. Changes `network` in place."""
    network.hf_quantizer = None
    network.is_quantized = False
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config


def _clean_config(config: Any) -> None:
    # GGUF keeps floats in 32 bits: 1e-05 comes back as 9.999999747378752e-06.
    import numpy as np

    for key, value in vars(config).items():
        if isinstance(value, float):
            setattr(config, key, float(str(np.float32(value))))
    # The file's title, which is no place to load from.
    config.__dict__.pop("_model_name_or_path", None)


def mend_tokenizer(tokenizer: PreTrainedTokenizerBase, fields: dict[str, Any], config: Any) -> None:
    """Put right what transformers leaves out of a GGUF tokenizer, in place.

    - the split before the merges, by `tokenizer.ggml.pre`: transformers falls back to GPT-2's, which
      cuts digits and the spaces before them differently from these vocabularies' own;
    - the length limit, from the network's context."""
    from tokenizers import pre_tokenizers

    if fields.get("tokenizer.ggml.model") == "gpt2" and fields.get("tokenizer.ggml.pre") in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if length := getattr(config, "max_position_embeddings", None):
        tokenizer.model_max_length = length

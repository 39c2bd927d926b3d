"""A Hugging Face folder on disk: check it, choose the network class, load network, tokenizer and processor."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from intarsia.errors import BadInput, IntarsiaError, MissingExtra, Note, did_you_mean, first_line
from intarsia.models.bare import bare_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

Kind = Literal["causal", "encoder", "masked", "seq2seq", "image-text"]
AUTO = {
    "causal": "AutoModelForCausalLM",
    "encoder": "AutoModel",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "image-text": "AutoModelForImageTextToText",
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json")
_PROCESSOR = ("processor_config.json", "preprocessor_config.json")


def check_kind(kind: str | None) -> None:
    """Raise `BadInput` when `kind` is not one of `Kind`."""
    if kind is not None and kind not in AUTO:
        raise BadInput(f"no kind '{kind}'{did_you_mean(kind, AUTO)}: give one of {', '.join(get_args(Kind))}")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder; `BadInput` when it is missing or not JSON."""
    file = folder / "config.json"
    if not file.is_file():
        raise BadInput(f"{folder} has no config.json: give a Hugging Face model folder, or a .gguf file")
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(f"{file} is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise BadInput(f"{file} should hold a JSON object, it holds a {type(config).__name__}")
    return config


def no_safetensors(what: str, files: Iterable[str]) -> str:
    """Why a model without safetensors is refused, for an error message."""
    pickles = sorted(f for f in files if f.endswith(_PICKLES) and Path(f).name != "training_args.bin")
    if pickles:
        return (
            f"{what} has its weights only as {pickles[0]}: a pickle file can run any code when it is opened, so only "
            "safetensors and GGUF are loaded. Convert it where you trust it: "
            "AutoModel.from_pretrained(...).save_pretrained(...)"
        )
    return f"{what} has no weights: model.safetensors (or its index and parts) is wanted"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in name order, each checked to be whole.

    Raises `BadInput` when there are none, a part is missing, or a file is cut off or damaged."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(f"{index} is damaged: it should map weights to files") from None
        files = [folder / name for name in names]
    elif (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        present = [f.name for f in folder.iterdir()] if folder.is_dir() else []
        raise BadInput(no_safetensors(str(folder), present))
    for file in files:
        check_safetensors(file)
    return files


def check_safetensors(file: Path) -> None:
    """Raise `BadInput` unless the file's header can be read and the file is exactly as long as the header says."""
    if not file.is_file():
        raise BadInput(f"{file} is missing although the index names it: the download or copy is not complete")
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise BadInput(f"{file} is cut off or no safetensors file ({size:,} bytes): copy or download it again")
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{file} has a damaged header: copy or download it again") from None
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        what = "is cut off" if size < wanted else "is damaged"
        raise BadInput(f"{file} {what}: {wanted:,} bytes wanted, {size:,} found. Copy or download it again")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars and load reports inside the block; its settings are put back after it."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def network_class(config: Any, kind: str | None, tensors: Iterable[str] = ()) -> Any:
    """The transformers class for a config: by `kind`, else the class the config names, else by the model type.

    `tensors` are the names of the weights: an encoder without a named class gets its masked-LM head only if there is
    one in the weights."""
    import transformers as tf
    from transformers.models.auto import modeling_auto as auto

    if kind is not None:
        return getattr(tf, AUTO[kind])
    for name in getattr(config, "architectures", None) or ():
        found = getattr(tf, name, None)
        if isinstance(found, type) and issubclass(found, tf.PreTrainedModel):
            return found
    remote = getattr(config, "auto_map", None) or {}
    for name in AUTO.values():
        if name in remote:
            return getattr(tf, name)
    type_ = config.model_type
    if type_ in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return tf.AutoModelForImageTextToText
    if getattr(config, "is_encoder_decoder", False):
        return tf.AutoModelForSeq2SeqLM
    if type_ in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        heads = ("cls.predictions", "lm_head", "vocab_transform", "generator_lm_head", "head.")
        return tf.AutoModelForMaskedLM if any(t.startswith(heads) for t in tensors) else tf.AutoModel
    if type_ in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return tf.AutoModelForCausalLM
    return tf.AutoModel


def load_network(
    folder: Path, *, dtype: torch.dtype | Literal["auto"], kind: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The network of a folder, in eval mode, on the CPU. Raises `BadInput` for anything that is not whole.

    A network whose weights leave some of it random is refused, save an encoder's pooler, which is left out then."""
    import transformers as tf
    from safetensors import SafetensorError, safe_open

    raw = read_config(folder)
    files = weight_files(folder)
    method = str((raw.get("quantization_config") or {}).get("quant_method", ""))
    if method.startswith("intarsia"):
        # The wing that quantized it registers its loader with transformers when the catalog is read.
        from intarsia import catalog

        catalog.load()
    try:
        config = tf.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise BadInput(_not_loadable(folder, error)) from error
    tensors: list[str] = []
    if kind is None and not config.architectures:
        for file in files:
            with safe_open(file, "pt") as opened:
                tensors += opened.keys()
    chosen = network_class(config, kind, tensors)

    def load(**more: Any) -> tuple[Any, dict[str, Any]]:
        with quiet():
            return chosen.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True,
                **({"trust_remote_code": True} if trust_remote_code else {}), **more,
            )  # fmt: skip

    try:
        network, report = load()
        missing = sorted(report["missing_keys"])
        if missing and all("pooler." in key for key in missing) and not method:
            network, report = load(add_pooling_layer=False)
            missing = sorted(report["missing_keys"])
    except SafetensorError as error:
        raise BadInput(f"the weights in {folder} are damaged ({error}): copy or download them again") from error
    except ImportError as error:
        raise IntarsiaError(f"{folder} needs a library that is missing: {first_line(error)}") from error
    except (ValueError, RuntimeError, KeyError, OSError, TypeError, AttributeError) as error:
        raise BadInput(_not_loadable(folder, error)) from error
    if method and getattr(network, "hf_quantizer", None) is None:
        raise BadInput(f"{folder} is quantized by '{method}', which nothing installed here can read")
    if missing and not method:
        raise BadInput(
            f"{folder} lacks {len(missing)} weights of {type(network).__name__} (first: {missing[0]}), they would be "
            f"random: give kind= one of {', '.join(AUTO)}, or the whole model"
        )
    return network.eval()


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder, or None when it has none."""
    import transformers as tf

    if not any((folder / name).is_file() for name in _TOKENIZER):
        return None
    try:
        if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
            return bare_tokenizer(folder)
        with quiet():
            if _is_plain(folder):
                tokenizer = tf.TokenizersBackend.from_pretrained(folder, local_files_only=True)
            else:
                tokenizer = tf.AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=trust_remote_code
                )
    except ImportError as error:
        raise MissingTokenizerLibrary(folder, error) from error
    except Exception as error:
        raise BadInput(f"the tokenizer in {folder} cannot be loaded: {first_line(error)}") from error
    return forget_loading(tokenizer)


def _is_plain(folder: Path) -> bool:
    """Whether a tokenizer is nothing but its `tokenizer.json`, as transformers 5 and Intarsia save most. Its class says
    so; to ask transformers, which would look at the network's config first, takes a second of imports."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    named = config.get("tokenizer_class") if isinstance(config, dict) else None
    return named == "TokenizersBackend" and "auto_map" not in config and (folder / "tokenizer.json").is_file()


def forget_loading(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Drop how a tokenizer was loaded from its settings: transformers would write it into the next save."""
    for key in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def load_processor(folder: Path, *, trust_remote_code: bool = False) -> ProcessorMixin | None:
    """The processor of a folder (pictures, or pictures and text), or None when it has none or its library is missing.

    A missing library only warns: the network still takes tensors."""
    import transformers as tf

    if not any((folder / name).is_file() for name in _PROCESSOR):
        return None
    # Without a tokenizer the whole processor would make up an empty one. Where it fails, pictures may still work.
    words = any((folder / name).is_file() for name in _TOKENIZER)
    for auto in (tf.AutoProcessor, tf.AutoImageProcessor) if words else (tf.AutoImageProcessor,):
        try:
            with quiet():
                return auto.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        except Exception as error:
            failure = error
    warnings.warn(f"the processor in {folder} was left out: {first_line(failure)}", Note, stacklevel=4)
    return None


class MissingTokenizerLibrary(MissingExtra):
    """The tokenizer's own library (sentencepiece, tiktoken...) is not installed."""

    def __init__(self, folder: Path, error: Exception):
        IntarsiaError.__init__(self, f"the tokenizer in {folder} needs a library that is missing: {first_line(error)}")


def _not_loadable(folder: Path, error: Exception) -> str:
    return f"transformers cannot load {folder}: {first_line(error)}"

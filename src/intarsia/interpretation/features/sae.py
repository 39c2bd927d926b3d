"""`SAE`: a sparse autoencoder over the states of one site, read and written in SAELens' layout.

A folder holds `cfg.json` and `sae_weights.safetensors` (`W_enc` [width, feature], `b_enc`, `W_dec` [feature, width],
`b_dec`, and what the architecture adds). Facts of the format: SAELens 3 to 6 (Bloom, Tigges, Duong, Chanin)."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, IntarsiaError, Note, first_line
from intarsia.interpretation.fitted import new_folder
from intarsia.report import Finding

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, FOUND = "cfg.json", "sae_weights.safetensors", "finding.json"
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "batchtopk")
NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale")
HOOKS = {  # TransformerLens' names of sites
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_z": "z",
    "mlp.hook_post": "mlp_act",
}


@dataclass
class SAE:
    """Features f(x) and reconstruction f(x) W_dec + b_dec of states x [..., width].

    - weights: `W_enc` [width, feature], `W_dec` [feature, width], `b_dec`, and by architecture `b_enc`, `threshold`
      (jumprelu), `b_gate`, `b_mag`, `r_mag` (gated), `scaling` (an older fine-tuned factor of each feature).
    - architecture: `standard` (ReLU), `gated`, `jumprelu` or `topk`.
    - site: where the states are read, `layers.7.resid_post`; of the tower that carries the text.
    - k: features that are kept (topk). centre_input: subtract b_dec first. rescale: compare features by their decoder
      norms before the top k. normalization: of each state before, undone afterwards. centred: trained on streams whose
      mean over the width was taken out (TransformerLens' `center_writing_weights`).
    - facts: the rest of `cfg.json`. finding: how the fit went."""

    weights: dict[str, Tensor]
    architecture: str
    site: str
    k: int | None = None
    centre_input: bool = True
    rescale: bool = False
    normalization: str = "none"
    centred: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    finding: Finding | None = None

    @property
    def width(self) -> int:
        """Width of the states."""
        return self.weights["W_dec"].shape[1]

    @property
    def features(self) -> int:
        """How many features there are."""
        return self.weights["W_dec"].shape[0]

    @property
    def directions(self) -> Tensor:
        """What one unit of each feature adds to the state, [feature, width]."""
        decoder = self.weights["W_dec"]
        decoder = decoder / decoder.norm(dim=-1, keepdim=True) if self.rescale else decoder
        return decoder * self.weights["scaling"][:, None] if "scaling" in self.weights else decoder

    def encode(self, states: Tensor) -> Tensor:
        """Features [..., feature] of states [..., width], never below 0."""
        return self._features(self._prepared(states)[0])

    def decode(self, features: Tensor) -> Tensor:
        """States [..., width] of features. Only without a normalization of the states (use `reconstruct` there)."""
        if self.normalization != "none" or self.centred:
            raise BadInput("this SAE normalizes each state: its features alone do not give the state back")
        return features @ self.directions + self.weights["b_dec"]

    def reconstruct(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(reconstruction [..., width], features [..., feature]) of states, in the dtype of the weights."""
        ready, undo = self._prepared(states)
        features = self._features(ready)
        return undo(features @ self.directions + self.weights["b_dec"]), features

    def _features(self, x: Tensor) -> Tensor:
        w = self.weights
        if self.architecture == "gated":
            pre = x @ w["W_enc"]
            magnitude = (pre * w["r_mag"].exp() + w["b_mag"]).relu()
            return magnitude * (pre + w["b_gate"] > 0)
        pre = x @ w["W_enc"] + w["b_enc"]
        if self.rescale:
            pre = pre * w["W_dec"].norm(dim=-1)
        if self.architecture == "jumprelu":
            return pre.relu() * (pre > w["threshold"].relu())
        if self.architecture == "topk":
            top = pre.topk(self.k or 1, dim=-1)
            return pre.new_zeros(pre.shape).scatter(-1, top.indices, top.values.relu())
        return pre.relu()

    def _prepared(self, states: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """States as the encoder wants them, and the way back."""
        x = states.to(self.weights["W_dec"])
        shift: Any = 0.0
        if self.centred:
            shift = x.mean(-1, keepdim=True)
            x = x - shift
        undo: Callable[[Tensor], Tensor] = lambda out: out + shift  # noqa: E731
        if self.normalization == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            x = x - mean
            std = x.std(-1, keepdim=True)
            x = x / (std + 1e-5)
            undo = lambda out: out * std + mean + shift  # noqa: E731
        elif self.normalization == "constant_norm_rescale":
            scale = self.width**0.5 / x.norm(dim=-1, keepdim=True)
            x = x * scale
            undo = lambda out: out / scale + shift  # noqa: E731
        return x - self.weights["b_dec"] if self.centre_input else x, undo

    def to(self, *args: Any, **kwargs: Any) -> SAE:
        """Itself with its weights moved or cast, as `Tensor.to`."""
        from dataclasses import replace

        return replace(self, weights={name: value.to(*args, **kwargs) for name, value in self.weights.items()})

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the folder `path` in SAELens' layout, whole or not at all; returns it.

        Raises `BadInput` when there is something already and not `force`."""
        from safetensors.torch import save_file

        tensors = {("scaling_factor" if n == "scaling" else n): v.contiguous() for n, v in self.weights.items()}
        with new_folder(path, force) as part:
            save_file(tensors, part / WEIGHTS)
            (part / CONFIG).write_text(json.dumps(self._config(), ensure_ascii=False, indent=1), "utf-8")
            if self.finding is not None:
                self.finding.write(part / FOUND)
        return Path(path).expanduser().absolute()

    def _config(self) -> dict[str, Any]:
        layer, kind = _layer_and_kind(self.site)
        hook = f"blocks.{layer}." + next(hook for hook, name in HOOKS.items() if name == kind)
        metadata = {"sae_lens_version": "6.0.0", **self.facts.get("metadata", {}), "hook_name": hook}
        if self.centred:
            metadata["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
        config: dict[str, Any] = {
            **{name: value for name, value in self.facts.items() if name != "metadata"},
            "architecture": self.architecture,
            "d_in": self.width,
            "d_sae": self.features,
            "dtype": str(self.weights["W_dec"].dtype).removeprefix("torch."),
            "device": "cpu",
            "apply_b_dec_to_input": self.centre_input,
            "normalize_activations": self.normalization,
            "reshape_activations": "hook_z" if kind == "z" else "none",
            "metadata": metadata,
        }
        if self.architecture == "topk":
            config |= {"k": self.k, "rescale_acts_by_decoder_norm": self.rescale}
        if "scaling" in self.weights:
            config["finetuning_scaling_factor"] = True
        return config

    @classmethod
    def load(cls, path: str | Path, at: str | None = None) -> SAE:
        """Read an SAE from a folder, or from the hub (`owner/repo` or `owner/repo/folder/inside`).

        - at: the site its states are from; by default what its config says.

        Raises `BadInput` for an architecture, a normalization or a site that is not known, or weights that do not go
        together."""
        folder = _folder(path)
        try:
            config = json.loads((folder / CONFIG).read_text("utf-8"))
            from safetensors.torch import load_file

            tensors = load_file(folder / WEIGHTS)
        except Exception as error:  # safetensors raises an error of its own, a plain Exception
            if not isinstance(error, (OSError, ValueError)) and type(error).__name__ != "SafetensorError":
                raise
            raise BadInput(f"{path}: the SAE cannot be read: {first_line(error)}") from None
        sae = _from_parts(config, tensors, str(path), at)
        if (folder / FOUND).is_file():
            sae.finding = Finding.from_json((folder / FOUND).read_text("utf-8"))
        return sae

    def __str__(self) -> str:
        if self.finding is not None:
            return str(self.finding)
        return f"SAE({self.architecture}, {self.features} features of width {self.width}, at {self.site})"


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser()
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return folder
    parts = str(path).split("/")
    if folder.exists() or len(parts) < 2 or not all(parts):
        raise BadInput(
            f"{path}: no SAE there: wants a folder with {CONFIG} and {WEIGHTS}, or owner/repo/folder on the hub"
        )
    from huggingface_hub import hf_hub_download

    inside = "/".join([*parts[2:], ""])
    try:
        files = [hf_hub_download("/".join(parts[:2]), inside + name) for name in (CONFIG, WEIGHTS)]
    except Exception as error:
        raise IntarsiaError(
            f"{path}: no such folder here, and from the hub it cannot be had: {first_line(error)}"
        ) from None
    return Path(files[0]).parent


def _from_parts(config: dict[str, Any], tensors: dict[str, Tensor], path: str, at: str | None) -> SAE:
    metadata = config.get("metadata") or {}
    architecture = config.get("architecture", "standard")
    k = config.get("k")
    # Before version 6 top-k was an activation function of the standard architecture.
    if config.get("activation_fn_str", config.get("activation_fn", "relu")) == "topk":
        architecture, k = "topk", (config.get("activation_fn_kwargs") or {}).get("k", k)
    if architecture not in ARCHITECTURES:
        raise BadInput(f"{path}: SAE architecture '{architecture}' is not known, these are: {', '.join(ARCHITECTURES)}")
    if architecture == "topk" and not k:
        raise BadInput(f"{path}: a top-k SAE whose config does not say k")
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    if "topk_threshold" in tensors:  # batch top-k works with one threshold once it is trained
        tensors["threshold"] = tensors.pop("topk_threshold").to(tensors["b_enc"]).expand_as(tensors["b_enc"]).clone()
    architecture = "jumprelu" if architecture == "batchtopk" else architecture
    scaling = tensors.pop("scaling_factor", tensors.pop("finetuning_scaling_factor", None))
    if scaling is not None and bool((scaling != 1).any()):
        tensors["scaling"] = scaling
    wanted = {"W_enc", "W_dec", "b_dec"} | {"gated": {"b_gate", "b_mag", "r_mag"}}.get(architecture, {"b_enc"})
    wanted |= {"threshold"} if architecture == "jumprelu" else set()
    if missing := sorted(wanted - set(tensors)):
        raise BadInput(f"{path}: the SAE has no tensor '{missing[0]}' (there is {', '.join(sorted(tensors))})")
    weights = {name: value for name, value in tensors.items() if name in wanted | {"scaling"}}
    if weights["W_enc"].shape != weights["W_dec"].shape[::-1]:
        raise BadInput(
            f"{path}: encoder {list(weights['W_enc'].shape)} and decoder {list(weights['W_dec'].shape)} do "
            f"not go together"
        )
    known = {"architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations",
             "reshape_activations", "k", "rescale_acts_by_decoder_norm", "finetuning_scaling_factor",
             "activation_fn_str", "activation_fn_kwargs", "activation_fn"}  # fmt: skip
    kwargs = metadata.get("model_from_pretrained_kwargs") or config.get("model_from_pretrained_kwargs") or {}
    return SAE(
        weights=weights,
        architecture=architecture,
        site=at or _site(metadata.get("hook_name") or config.get("hook_name") or config.get("hook_point"), path),
        k=int(k) if architecture == "topk" else None,
        centre_input=bool(config.get("apply_b_dec_to_input", True)),
        rescale=bool(config.get("rescale_acts_by_decoder_norm", False)),
        normalization=_normalization(config.get("normalize_activations", "none"), path),
        centred=bool(kwargs.get("center_writing_weights", False)),
        facts={name: value for name, value in config.items() if name not in known},
    )


def _normalization(given: Any, path: str) -> str:
    if given in (False, None):
        return "none"
    if given in (True, "expected_average_only_in"):
        # The factor is part of the training run, not of the file; released weights usually have it folded in.
        warnings.warn(
            f"{path}: its states were scaled by a factor that the file does not hold; taken as 1", Note, stacklevel=4
        )
        return "none"
    if given not in NORMALIZATIONS:
        raise BadInput(f"{path}: normalization '{given}' is not known, these are: {', '.join(NORMALIZATIONS)}")
    return str(given)


def _site(hook: str | None, path: str) -> str:
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook or "")
    if not match or match[2] not in HOOKS:
        raise BadInput(
            f"{path}: its config names the place '{hook}', which is not known: say where its states are from (at)"
        )
    return f"layers.{match[1]}.{HOOKS[match[2]]}"


def _layer_and_kind(site: str) -> tuple[int, str]:
    match = re.fullmatch(r"(?:.+\.)?layers\.(\d+)\.(\w+)", site)
    if not match or match[2] not in HOOKS.values():
        raise BadInput(f"'{site}' is no place an SAE can be at: wants layers.N.{'|'.join(HOOKS.values())}")
    return int(match[1]), match[2]

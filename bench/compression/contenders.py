"""The points that are compared: who rounds the dense model how, and which engine then runs it.

A contender writes what its engine opens into a folder of its own; what stands there already is not made again. Peers
are optional: one whose package is missing, or that refuses the model, raises, and is left out with a line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import intarsia as ia
from intarsia.compression import quantize
from intarsia.compression.exporting.gguf import export_gguf
from intarsia.compression.exporting.onnx_genai import export_onnx_genai
from intarsia.data import Text
from intarsia.models import Model

# Embedding and head: the file's own 8 bits in blocks of 32, which are finer than a scale a row.
BLOCKS = {"group_size": 32, "embed": "keep"}
BOTH = {**BLOCKS, "method": "awq+gptq"}
TABLE = {"embed": "int4"}
ASYMMETRIC = {"bits": 4, **BOTH}
SYMMETRIC = {"scheme": "symmetric", **BOTH}


@dataclass
class Source:
    """The dense model in the forms that quantizers read, below a folder; each is written when first asked for.

    - texts, tokens: what our quantizers calibrate on. both: two kinds of text mixed, of which twice as many are read;
      empty where there is no second kind."""

    dense: Model
    folder: Path
    texts: Sequence[Text]
    tokens: int = 4096
    both: Sequence[Text] = ()
    _rounded: dict[str, Model] = field(default_factory=dict)

    @property
    def hf(self) -> Path:
        """A plain Hugging Face folder, float32."""
        place = self.folder / "dense"
        if not (place / "config.json").is_file():
            self.dense.network.save_pretrained(place)
            self.dense.tokenizer.save_pretrained(place)  # type: ignore[union-attr]
            config = json.loads((place / "config.json").read_text())
            # transformers 5 keeps theta among the rope parameters; converters still look for it at the top.
            config["rope_theta"] = config["rope_parameters"]["rope_theta"]
            (place / "config.json").write_text(json.dumps(config, indent=2))
        return place

    def gguf(self, kind: str) -> Path:
        """The file llama.cpp's own tools begin with, F32 or F16."""
        place = self.folder / f"dense-{kind}.gguf"
        if not place.is_file():
            export_gguf(self.dense, place, {"*": kind}, check_again=False)
        return place

    def rounded(self, settings: Mapping[str, Any], both: bool = False) -> Model:
        """The model on our grids. It may go into several files, so it is kept.

        - both: calibrated on both kinds of text."""
        name = "-".join(f"{key}={value}" for key, value in sorted(settings.items())) + "-both" * both

        def make() -> Model:
            if both and not self.both:
                raise ImportError("there is no second kind of text to calibrate on")
            texts, tokens = (self.both, 2 * self.tokens) if both else (self.texts, self.tokens)
            return quantize(self.dense, calibration=list(texts), tokens=tokens, **settings)

        return self.kept(f"rounded-{name}", make)

    def kept(self, name: str, make: Callable[[], Model]) -> Model:
        """The model below the folder called so; made where it is not there yet."""
        place = self.folder / name
        if not place.is_dir():
            make().save(place)
        return ia.load(str(place))


@dataclass(frozen=True)
class Contender:
    """A way to make the model small, and what runs it.

    - package: whose version the table names. engine: a key of `engines.ENGINES`.
    - make: writes into the folder it is given what the engine opens. smaller: whether parts of the network are gone.
    - own_tokens: whether its vocabulary may be another than the dense model's; its tokenizer lies in `tokenizer`."""

    name: str
    package: str
    engine: str
    make: Callable[[Source, Path], Any]
    ours: bool = False
    bits: float = 8
    own_tokens: bool = False
    smaller: bool = False


def contenders() -> list[Contender]:
    """Ours, then the peers'."""
    four = {
        "4 bits symmetric, head too": {"bits": 4, **SYMMETRIC, **TABLE},
        "4 bits, head too": {**ASYMMETRIC, **TABLE},
        "4 bits symmetric": {"bits": 4, **SYMMETRIC},
        "4 bits": ASYMMETRIC,
    }
    files: dict[str, tuple[float, Mapping[str, Any]]] = {
        "Q4_0, head too": (4, {"bits": 4, **SYMMETRIC, **TABLE}),
        "Q4_0": (4, {"bits": 4, **SYMMETRIC}),
        "4 bits": (4, ASYMMETRIC),
        "Q5_0": (5, {"bits": 5, **SYMMETRIC}),
        **_mixed(4.1, 4.6, 5.3, 6.5, 7.5),
    }
    of_both = {"Q4_0": files["Q4_0"], **_mixed(4.1, 4.6, 5.8, 7)}
    eight = {"bits": 8, "method": "gptq", "scheme": "symmetric", **BLOCKS}
    own = [
        *(Contender(f"ours: GGUF {name}, awq+gptq", "ik-llama-cpp-python", "gguf", _own_gguf(settings), bits=bits)
          for name, (bits, settings) in files.items()),
        *(Contender(f"ours: GGUF {name}, awq+gptq, both texts", "ik-llama-cpp-python", "gguf",
                    _own_gguf(settings, both=True), bits=bits)
          for name, (bits, settings) in of_both.items()),
        Contender("ours: GGUF Q8_0, gptq", "ik-llama-cpp-python", "gguf", _own_gguf(eight)),
        *(Contender(f"ours: ONNX GenAI {name}, awq+gptq", "onnxruntime-genai", "onnx-genai", _own_onnx(some), bits=4)
          for name, some in four.items()),
        Contender("ours: OpenVINO 4 bits symmetric, awq+gptq", "openvino", "openvino",
                  _own_openvino(four["4 bits symmetric"]), bits=4),
        Contender("ours: OpenVINO 8 bits, gptq", "openvino", "openvino", _own_openvino(eight)),
        Contender("ours: CTranslate2 8 bits", "ctranslate2", "ctranslate2", _own_ctranslate2),
        Contender("ours: torch 8 bits", "torch", "torch", lambda s, out: s.rounded({"bits": 8}).save(out / "model")),
    ]  # fmt: skip
    return [*(replace(c, ours=True) for c in own), *peers()]


def peers() -> list[Contender]:
    """Each in its own usual ways."""
    llama = [
        Contender(f"llama-quantize {kind}", "ik-llama-cpp-python", "gguf", _llama_quantize(kind), bits=bits)
        for kind, bits in {"Q4_0": 4, "Q4_1": 4, "IQ4_NL": 4, "IQ4_K": 4, "Q4_K_M": 4, "Q5_0": 5, "Q5_K_M": 5,
                           "Q6_K": 6, "Q8_0": 8}.items()
    ]  # fmt: skip
    own = [Contender("gguf Q4_0", "gguf", "gguf", _gguf_package("Q4_0"), bits=4)]
    rtn = {"algo_config": "rtn", "is_symmetric": "false", "op_types_to_quantize": "MatMul/Gather",
           "shared_embeddings": "true"}  # fmt: skip
    onnx = [
        Contender("ONNX GenAI int4, as it comes", "onnxruntime-genai", "onnx-genai", _onnx("int4", {}), bits=4),
        Contender("ONNX GenAI int4 rtn, embedding too", "onnxruntime-genai", "onnx-genai", _onnx("int4", rtn), bits=4),
        Contender("ONNX GenAI int4 rtn, head int8", "onnxruntime-genai", "onnx-genai",
                  _onnx("int4", rtn | {"matmul_mixed_precision": "last_matmul:int8"}), bits=4),
        Contender("ONNX GenAI int4 k_quant_mixed", "onnxruntime-genai", "onnx-genai",
                  _onnx("int4", {"algo_config": "k_quant_mixed"}), bits=4),
        Contender("ONNX GenAI int8", "onnxruntime-genai", "onnx-genai",
                  _onnx("int8", {"op_types_to_quantize": "MatMul/Gather", "shared_embeddings": "true"})),
    ]  # fmt: skip
    vino = [
        Contender("OpenVINO nncf int8", "openvino", "openvino", _nncf("INT8_ASYM", {})),
        Contender("OpenVINO nncf int4", "openvino", "openvino",
                  _nncf("INT4_ASYM", {"group_size": 32, "ratio": 1.0}), bits=4),
        Contender("OpenVINO nncf int4, awq+scales", "openvino", "openvino",
                  _nncf("INT4_ASYM", {"group_size": 32, "ratio": 1.0, "awq": True, "scale_estimation": True}), bits=4),
    ]  # fmt: skip
    ct2 = [
        Contender(f"CTranslate2 {kind}", "ctranslate2", "ctranslate2", _ctranslate2(kind), bits=bits)
        for kind, bits in {"int8": 8, "float32": 32}.items()
    ]
    # These round when they are opened; the folder they open is the dense one.
    torch = [
        Contender("torch float32", "torch", "torch-dense", _link, bits=32),
        Contender("torch.ao dynamic int8", "torch", "torch-ao", _link),
        Contender("torchao int8 weights", "torchao", "torchao-int8", _link),
        Contender("torchao int4 weights", "torchao", "torchao-int4", _link, bits=4),
    ]
    return [*llama, *own, *onnx, *vino, *ct2, *torch]


def _mixed(*means: float) -> dict[str, tuple[float, Mapping[str, Any]]]:
    """Files whose parts have 4, 5 or 8 bits, by name: (bits in the mean, settings)."""
    return {f"{bits} bits in the mean": (bits, {"average_bits": bits, "among": (4, 5, 8), **SYMMETRIC})
            for bits in means}  # fmt: skip


def _own_gguf(settings: Mapping[str, Any], both: bool = False) -> Callable[[Source, Path], Any]:
    types = {} if settings["embed"] == "int4" else {"model.embed_tokens": "Q8_0"}
    return lambda source, out: export_gguf(
        source.rounded(settings, both), out / "model.gguf", types, check_again=False
    )  # fmt: skip


def _own_openvino(settings: Mapping[str, Any]) -> Callable[[Source, Path], Any]:
    def make(source: Source, out: Path) -> None:
        _needs("openvino", "openvino_genai")
        from intarsia.compression.exporting.openvino import export_openvino

        export_openvino(source.rounded(settings), out / "model", {"model.embed_tokens": "Q8_0"})

    return make


def _own_ctranslate2(source: Source, out: Path) -> None:
    _needs("ctranslate2")
    from intarsia.compression.exporting.ctranslate2 import export_ctranslate2

    export_ctranslate2(source.rounded({"bits": 8}), out / "model")


def _own_onnx(settings: Mapping[str, Any]) -> Callable[[Source, Path], Any]:
    table = "int4" if settings["embed"] == "int4" else "int8"
    return lambda source, out: export_onnx_genai(source.rounded(settings), out / "model", group_size=32, embed=table)


def _llama_quantize(kind: str) -> Callable[[Source, Path], Any]:
    def make(source: Source, out: Path) -> None:
        from ik_llama_cpp import find_quantize_bin

        program = find_quantize_bin()
        if program is None:
            raise ImportError("this wheel of ik-llama-cpp-python has no llama-quantize")
        _call([str(program), str(source.gguf("F32")), str(out / "model.gguf"), kind, "1"])

    return make


def _gguf_package(kind: str) -> Callable[[Source, Path], Any]:
    """The package's own rounding; embedding and head in 8 bits, as ours have them."""

    def make(source: Source, out: Path) -> None:
        types = {"model.embed_tokens": "Q8_0", "*": kind}
        export_gguf(source.dense, out / "model.gguf", types, check_again=False)

    return make


def _onnx(precision: str, options: Mapping[str, str]) -> Callable[[Source, Path], Any]:
    def make(source: Source, out: Path) -> None:
        _needs("onnxruntime_genai", "onnx_ir")
        spec = importlib.util.find_spec("onnxruntime_genai")
        # The builder's modules import each other by bare names: it is run as a file, not as a module.
        builder = Path(spec.origin).parent / "models" / "builder.py"  # type: ignore[union-attr, arg-type]
        # accuracy_level 4 rounds activations to 8 bits inside a product: the quick one, and ours.
        extra = {"block_size": "32", "accuracy_level": "4", "hf_token": "false", **options}
        _call(
            [sys.executable, str(builder), "-i", str(source.hf), "-o", str(out / "model"),
             "-p", precision, "-e", "cpu", "-c", str(out / "cache"),
             "--extra_options", *(f"{key}={value}" for key, value in extra.items())]
        )  # fmt: skip

    return make


def _nncf(mode: str, options: Mapping[str, Any]) -> Callable[[Source, Path], Any]:
    def make(source: Source, out: Path) -> None:
        _needs("openvino", "nncf", "openvino_genai")
        # In a process of its own: nncf patches torch when it is imported.
        from bench.compression import openvino_making

        windows = source.folder / "calibration.json"
        if "awq" in options and not windows.is_file():
            from bench.compression.texts import windows as cut

            windows.write_text(json.dumps(cut(source.dense, [t.text for t in source.texts], source.tokens)))
        _call(
            [sys.executable, str(Path(openvino_making.__file__)), str(source.gguf("F16")), str(out), mode,
             json.dumps(options), str(windows)]
        )  # fmt: skip

    return make


def _ctranslate2(kind: str) -> Callable[[Source, Path], Any]:
    def make(source: Source, out: Path) -> None:
        _needs("ctranslate2")
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(source.hf)).convert(str(out / "model"), quantization=kind)

    return make


def _link(source: Source, out: Path) -> None:
    (out / "model").symlink_to(source.hf.resolve(), target_is_directory=True)


def _needs(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"{name} is not installed")


def _call(command: list[str]) -> None:
    """Run a program; raises `RuntimeError` with its last words."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise RuntimeError(words[-1].strip() if words else f"{Path(command[0]).name} ended with {done.returncode}")

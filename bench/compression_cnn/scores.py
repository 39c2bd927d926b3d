"""What a network is, in the survey's scores: quality for what it takes."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import interleave, ratio
from intarsia.compression.convolution import accuracy, bytes_at_rest, export_onnx, onnx_answers, open_onnx
from intarsia.compression.convolution.quantizing import settle
from intarsia.measure import scores
from intarsia.measure.counting import count_macs
from intarsia.measure.size import count_parameters, tensor_bytes


def facts(network: nn.Module, test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Accuracy, parameters, bytes and multiply-accumulates of a picture."""
    import copy

    plain = copy.deepcopy(network)
    settle(plain)
    return {
        "accuracy": accuracy(network, *test),
        "parameters": count_parameters(network)[0],
        "bytes": tensor_bytes(network),
        "bytes_at_rest": bytes_at_rest(network),
        "macs": count_macs(lambda: plain.eval()(test[0][:1])).macs,
    }


def session(network: nn.Module, pixels: Tensor, mode: str, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that dynamic is slow: it is measured here
        return open_onnx(export_onnx(network, folder / f"{mode}.onnx", pixels, mode))


def timed(network: nn.Module, dense: nn.Module, pictures: Any, mode: str, rounds: int) -> dict[str, float]:
    """Milliseconds of one picture in ONNX Runtime, one thread, beside the dense network in float; and the accuracy."""
    one = pictures.train[0][:1]
    with tempfile.TemporaryDirectory() as scratch:
        ours = session(network, pictures.train[0], mode, Path(scratch) / "ours")
        theirs = session(dense, pictures.train[0], "float", Path(scratch) / "dense")
        given = {"pixels": one.numpy()}
        times = interleave(
            {"ours": lambda: _often(ours, given), "dense": lambda: _often(theirs, given)}, rounds=rounds
        )  # fmt: skip
        said = onnx_answers(ours, pictures.test[0])
        size = (Path(scratch) / "ours" / f"{mode}.onnx").stat().st_size
    return {
        "ms": times["ours"].median / CALLS * 1e3,
        "over_dense": ratio(times["ours"], times["dense"]),
        "onnx_accuracy": float((said.argmax(-1) == pictures.test[1]).float().mean()),
        "onnx_bytes": size,
    }


CALLS = 100


def _often(one: Any, given: dict[str, Any]) -> None:
    for _ in range(CALLS):
        one.run(None, given)


def engines(network: nn.Module, pictures: Any, rounds: int) -> dict[str, dict[str, float]]:
    """torch, and ONNX Runtime in float, static and dynamic 8 bits: milliseconds of 1 and of 64 pictures, in turn."""
    pixels = pictures.train[0]
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        sessions = {mode: session(network, pixels, mode, Path(scratch)) for mode in ("float", "static", "dynamic")}
        sizes = {mode: (Path(scratch) / f"{mode}.onnx").stat().st_size for mode in sessions}
        out: dict[str, dict[str, float]] = {}
        network.eval()
        for count, calls in ((1, CALLS), (64, 5)):
            some = pixels[:count].contiguous()
            work: dict[str, Any] = {"torch": lambda some=some, calls=calls: [network(some) for _ in range(calls)]}
            for mode, one in sessions.items():
                work[f"onnx {mode}"] = lambda one=one, some=some, calls=calls: [
                    one.run(None, {"pixels": some.numpy()}) for _ in range(calls)
                ]
            for name, timing in interleave(work, rounds=rounds).items():
                row = out.setdefault(name, {})
                row[f"ms_{count}"] = timing.median / calls * 1e3
        out["torch"] |= {"accuracy": accuracy(network, *pictures.test), "bytes": tensor_bytes(network)}
        for mode, one in sessions.items():
            said = onnx_answers(one, pictures.test[0])
            right = float((said.argmax(-1) == pictures.test[1]).float().mean())
            out[f"onnx {mode}"] |= {"accuracy": right, "bytes": sizes[mode]}
    return out


def survey(row: dict[str, float], base: dict[str, float]) -> dict[str, float]:
    """Quality for each resource, with those of the dense network as 1 where it says 'balanced'.

    quality per million parameters, MB, billion multiply-accumulates and joule (estimated); LPIRC's: quality over
    watt-hours; balanced: the geometric mean of Q / Q0, (size0 / size)^.5 and (latency0 / latency)^.5."""
    quality = row["accuracy"]
    energy = scores.estimated_joules(row["ms"] / 1e3, row["bytes"])
    spent = {"parameters": row["parameters"], "size": row["bytes"], "macs": row["macs"], "joules": energy}
    ratios = (row[name] / base[name] for name in ("accuracy", "bytes", "ms"))
    return {
        **scores.per_resource(quality, **spent), "lpirc": scores.lpirc(quality, energy),
        "balanced": scores.balanced(*ratios),
    }  # fmt: skip

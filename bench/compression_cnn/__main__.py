"""Convolutional networks at 2, 4 and 10 times less memory, by family: accuracy, size, work, time, the survey's scores.

    python -m bench.compression_cnn [--quick] [--json FILE] [--keep DIR] [--only digits photographs] [--seeds 3]

digits: scikit-learn's 8x8 digits with noise, a residual network of 151 thousand parameters, seeds paired: every family
begins with the same trained networks. photographs: the CIFAR-10 subset (INTARSIA_DATA), one seed. Times are of one
picture in ONNX Runtime on one thread, in turn with the dense network in float."""

from __future__ import annotations

import copy
import statistics
from pathlib import Path
from typing import Any

import torch

from bench.common import parser, show, start, write
from bench.compression_cnn.families import FAMILIES, SIZES, learnt_again, made
from bench.compression_cnn.pictures import Pictures, digits, photographs
from bench.compression_cnn.scores import engines, facts, survey, timed
from bench.kept import Kept
from intarsia.compression.convolution import accuracy, quantize_network, recover, reestimate, zero_network

DATA = {"digits": digits, "photographs": photographs}
# Format and terms, or the share of zeros.
ROUNDED: dict[str, tuple[str, float]] = {
    "8 bits": ("int8", 1), "4 bits": ("int4", 1), "3 bits": ("int3", 1), "one power of two": ("power", 1),
    "1.5 powers of two": ("power", 1.5), "two powers of two": ("power", 2), "ternary": ("ternary", 1),
    "binary": ("binary", 1), "50 % zeros": ("zeros", 0.5), "80 % zeros": ("zeros", 0.8), "90 % zeros": ("zeros", 0.9),
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    arguments.add_argument("--seeds", type=int, metavar="N", help="of digits (default 3; quick 1)")
    arguments.add_argument("--keep", type=Path, metavar="DIR")
    options = arguments.parse_args()
    start(options)
    figures: dict[str, float] = {}
    for name in options.only:
        pictures = DATA[name](options.quick)
        seeds = (options.seeds or (1 if options.quick else 3)) if name == "digits" else 1
        kept = Kept(options.keep, f"cnn-{name}", options.quick)
        figures |= measured(pictures, seeds, kept, 3 if options.quick else 9)
    write(figures, options.json)


def measured(pictures: Pictures, seeds: int, kept: Kept, rounds: int) -> dict[str, float]:
    """The tables of one data set, and its figures."""
    dense = [trained(pictures, seed, kept) for seed in range(seeds)]
    base = [kept(f"dense-{seed}", lambda n=n: _dense(n, pictures, rounds)) for seed, n in enumerate(dense)]
    title = f"{pictures.name}, {base[0]['parameters']:,} parameters, accuracy {_mean(base, 'accuracy'):.4f}"
    if pictures.name == "digits":
        _statistics(pictures, dense, kept, title)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for family in FAMILIES:
        for times in SIZES:
            for seed in range(seeds):
                row = kept(
                    f"{family}-{times}-{seed}",
                    lambda f=family, t=times, s=seed: _row(f, t, dense[s], pictures, s, rounds),
                )
                found.setdefault((family, times), []).append(row)
                print(f"{family} {times} {seed}: {row['accuracy']:.4f}", flush=True)
    again = [
        kept(f"again-{seed}", lambda n=n, s=seed: facts(learnt_again(n, pictures, s), pictures.test))
        for seed, n in enumerate(dense)
    ]
    _families(found, base, title)
    print(f"the dense network, learnt again as long as the small ones: {_loss(again, base):+.4f} lost")
    _scores(found, base, title)
    _engines(kept("engines", lambda: engines(dense[0], pictures, rounds)), title)
    prefix = "cnn" if pictures.name == "digits" else "cnn_photographs"
    out = {f"{prefix}_accuracy": _mean(base, "accuracy"), f"{prefix}_learnt_again_loss": _loss(again, base)}
    for times in SIZES:
        losses = {family: _loss(found[family, times], base) for family in FAMILIES}
        out[f"{prefix}_accuracy_loss_{times}x"] = min(losses.values())
    engine = kept("engines", dict)
    out[f"{prefix}_onnx_static_over_float"] = engine["onnx static"]["ms_1"] / engine["onnx float"]["ms_1"]
    return out


def trained(pictures: Pictures, seed: int, kept: Kept) -> torch.nn.Module:
    """The dense network of a seed, from where it was kept if it was."""
    network = pictures.network(seed)
    file = None if kept.folder is None else kept.folder / f"network-{seed}.pt"
    if file is not None and file.is_file():
        network.load_state_dict(torch.load(file, weights_only=True))
        return network.eval()
    recover(network, *pictures.train, lesson=pictures.lesson, seed=seed)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), file)
    return network.eval()


def _dense(network: torch.nn.Module, pictures: Pictures, rounds: int) -> dict[str, float]:
    return facts(network, pictures.test) | timed(network, network, pictures, "float", rounds)


def _row(
    family: str, times: float, dense: torch.nn.Module, pictures: Pictures, seed: int, rounds: int
) -> dict[str, float]:
    small = made(family, times, dense, pictures, seed)
    # 8 bits run in whole numbers; what has fewer has no kernel and runs in float.
    eight = any(getattr(m, "format", None) == "int8" for n, m in small.named_modules() if "first" in n)
    return facts(small, pictures.test) | timed(small, dense, pictures, "static" if eight else "float", rounds)


def _statistics(pictures: Pictures, dense: list[torch.nn.Module], kept: Kept, title: str) -> None:
    """Rounding and zeros without any training, before and after the batch norms' statistics are taken again."""

    def one(network: torch.nn.Module, kind: str, value: float) -> dict[str, float]:
        if kind == "zeros":
            changed = zero_network(network, value)
        else:
            changed = copy.deepcopy(network)
            quantize_network(changed, kind, terms=value)
        before = facts(changed, pictures.test)
        reestimate(changed, pictures.train[0])
        return before | {"after": accuracy(changed, *pictures.test)}

    rows = []
    for name, (kind, value) in ROUNDED.items():
        every = [
            kept(f"norms-{name}-{seed}", lambda n=network, k=kind, v=value: one(n, k, v))
            for seed, network in enumerate(dense)
        ]
        size = _mean(every, "bytes_at_rest") / 1e3
        rows.append([name, f"{size:.0f}", f"{_mean(every, 'accuracy'):.3f}", f"{_mean(every, 'after'):.3f}"])
    show(f"New batch-norm statistics: {title}", ["", "kB at rest", "accuracy", "with new statistics"], rows)


def _families(found: dict[tuple[str, int], list[dict[str, float]]], base: list[dict[str, float]], title: str) -> None:
    rows = []
    for family in FAMILIES:
        row = [family]
        for times in SIZES:
            every = found[family, times]
            lost = [b["accuracy"] - r["accuracy"] for r, b in zip(every, base, strict=True)]
            spread = f" ± {statistics.stdev(lost):.4f}" if len(lost) > 1 else ""
            row.append(f"{_loss(every, base):+.4f}{spread} ({base[0]['bytes'] / _mean(every, 'bytes'):.1f}x)")
        rows.append(row)
    columns = ["accuracy lost (times smaller)", *(f"{times} times less memory" for times in SIZES)]
    show(f"{title}, {len(base)} paired seeds", columns, rows)


def _scores(found: dict[tuple[str, int], list[dict[str, float]]], base: list[dict[str, float]], title: str) -> None:
    middle = {key: _mean(base, key) for key in base[0]}
    rows = [_scored("dense", middle, middle)]
    for (family, times), every in found.items():
        row = {key: _mean(every, key) for key in every[0]}
        row["ms"] = middle["ms"] * row["over_dense"]  # the ratio holds within a run; milliseconds drift between runs
        rows.append(_scored(f"{family} {times}x", row, middle))
    columns = [
        "", "accuracy", "k params", "kB", "M MACs", "ms", "Q/M params", "Q/MB", "Q/G MACs", "Q/J est.", "LPIRC est.",
        "balanced",
    ]  # fmt: skip
    show(f"The survey's scores: {title}; joules estimated (4 W a core, 20 pJ a bit)", columns, rows)


def _scored(name: str, row: dict[str, float], base: dict[str, float]) -> list[str]:
    scores = survey(row, base)
    return [
        name, f"{row['accuracy']:.3f}", f"{row['parameters'] / 1e3:.1f}", f"{row['bytes'] / 1e3:.0f}",
        f"{row['macs'] / 1e6:.2f}", f"{row['ms']:.3f}", f"{scores['per_mparam']:.1f}", f"{scores['per_mb']:.1f}",
        f"{scores['per_gmac']:.0f}", f"{scores['per_joule']:.0f}", f"{scores['lpirc']:.2e}",
        f"{scores['balanced']:.2f}",
    ]  # fmt: skip


def _engines(found: dict[str, dict[str, Any]], title: str) -> None:
    rows = [
        [name, f"{row['ms_1']:.3f}", f"{row['ms_64']:.2f}", f"{row['accuracy']:.4f}", f"{row['bytes'] / 1e3:.0f}"]
        for name, row in found.items()
    ]
    show(f"Engines: {title}", ["", "ms, 1 picture", "ms, 64", "accuracy", "kB"], rows)


def _mean(rows: list[dict[str, float]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def _loss(rows: list[dict[str, float]], base: list[dict[str, float]]) -> float:
    return statistics.fmean(b["accuracy"] - r["accuracy"] for r, b in zip(rows, base, strict=True))


if __name__ == "__main__":
    main()

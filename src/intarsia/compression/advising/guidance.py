"""The families of low-power deep learning: what they are good for, what they cost, and the ways out.

Source: Goel et al. 2020, arXiv 2003.11066, table 1 (advantages, disadvantages) and the closing guidelines, in our
words; the advice for a CPU is ours, from what docs/benchmarks.md measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """- name. gain, price: what it is good and bad for. remedy: against the price. advice: for a CPU.
    - cost: KL to the model as it was, in nats a token, of a usual setting of it on a model of 135 M: (setting, KL).
    - commands: after `intarsia compression`, for language models and encoders; filters: the same for filters."""

    name: str
    gain: str
    price: str
    remedy: str
    advice: str
    commands: tuple[str, ...]
    filters: tuple[str, ...]
    cost: tuple[str, float] | None = None


FAMILIES = (
    Family(
        "quantization",
        "fewer bytes and cheaper arithmetic for little quality; goes with every other family",
        "very few bits want training, or hardware made for them",
        "a number of bits for each layer, by how much the predictions hear of its error",
        "8 bits always; 4 bits by awq+gptq, mixed; run the exported file, not PyTorch",
        ("quantize --bits 4 --method awq+gptq", "export"),
        ("quantize-filters", "export-filters"),
        ("4 bits, awq+gptq, mixed", 0.07),
    ),
    Family(
        "pruning",
        "takes out what is not needed; whole blocks, heads and neurons make everything quicker",
        "single zeros gain nothing on a CPU or GPU; wants training afterwards",
        "whole parts instead of single weights; what is left is fitted anew",
        "only whole parts; then distil. Zeros (also 2:4) are for storage alone",
        ("drop-blocks --count 3", "narrow --neurons 0.2"),
        ("prune-filters",),
        ("3 of 30 blocks", 0.40),
    ),
    Family(
        "compact filters",
        "few parameters in convolutions; goes with the other families",
        "poor use of the cache, so that fewer operations need not be less time; trained from scratch in the papers",
        "begin from the filters that are there, and teach them by the network as it was",
        "only together with an export, and measure: in PyTorch they are often slower",
        (),
        ("factorize-filters",),
    ),
    Family(
        "factorization",
        "linear algebra on what is trained already",
        "much rank has to go before a byte is won (half of it in a square matrix); quality falls quickly",
        "weigh errors by what layers read; use it for what rounding left over",
        "of a language model rather the rounding error (rank) than the weights themselves",
        ("quantize --bits 4 --method awq+gptq --rank 16", "factorize --keep 0.8"),
        ("factorize-filters",),
        ("80 % of the body's weights", 0.32),
    ),
    Family(
        "architecture search",
        "the best quality for a cost on the very device",
        "the search itself is dear",
        "share weights between candidates, predict, and measure few of them",
        "slices of the trained network, judged by one sensitivity: no training of candidates",
        ("search-architecture --budget 'params<0.85x'", "fit --budget 'bytes<90MB, quality>0.95x'"),
        ("search-filters",),
    ),
    Family(
        "distillation",
        "a small network takes over a large one's behaviour, on any hardware",
        "wants text of the domain, and time",
        "states and attention as lessons beside the answers; several teachers",
        "after every cut, before quantizing",
        ("distil --teacher ORIGINAL --train TEXTS",),
        ("distil-filters --teacher ORIGINAL",),
    ),
)
"""In the order in which they are worth trying on a CPU; distillation goes with each."""

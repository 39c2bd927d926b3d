"""More experts and devices than there are here: simulation. Routing is drawn from chains of known affinity and replayed
exactly, so counts are exact for it; times are modelled on links whose figures are placeholders."""

from __future__ import annotations

from bench.common import show
from intarsia.moe.placement import Placement, Problem, contiguous, solve
from intarsia.moe.runtime import LINKS, Sizes, chain, drawn, simulate

# name -> (experts, choices, layers, bytes of a state, bytes of a token's keys and values in a layer)
SHAPES = {
    "Mixtral 8x7B (GQA)": (8, 2, 32, 2 * 4096, 2 * 2 * 8 * 128),
    "OLMoE-like, one choice (MHA)": (64, 1, 16, 2 * 2048, 2 * 2 * 2048),
    "DeepSeek-like, one choice (MLA)": (64, 1, 60, 2 * 7168, 2 * 576),
}


def run(quick: bool) -> None:
    """Modelled seconds of a decode step of 32 requests, contiguous and placed, in every mode."""
    rows = []
    for name, (experts, k, layers, state, context) in SHAPES.items():
        flow = chain(layers, experts)
        routing = drawn(flow, None, k, requests=32, tokens=12, sticky=0.5)
        sizes = Sizes(state, 4, (context,) * layers, tuple(range(layers)))
        for devices in (4, 8, 16, 32):
            if devices > experts:
                continue
            best = solve(Problem(flow / flow.sum((1, 2), keepdims=True), devices), effort=20 if quick else 200)
            made = {
                "contiguous": Placement(contiguous(layers, experts, devices), devices, k=k),
                "placed": Placement(best.device_of, devices, k=k),
            }
            for link in ("nvlink", "hdr200", "10gbe"):
                lines = simulate(routing, made, sizes, LINKS[link], prompt=8, batch=32)
                times = {(line.placement, line.mode): line.modelled_seconds for line in lines}
                base = times["contiguous", "vanilla"]
                cells = [f"{1e3 * base:.2f} ms"]
                cells += [f"{times['placed', mode] / base:.2f}" for mode in ("vanilla", "home", "coherent")]
                rows.append([name, str(devices), link, *cells])
    columns = ["simulation", "devices", "link (placeholder figures)", "vanilla, contiguous", "placed: vanilla", "home",
               "coherent"]  # fmt: skip
    show("SIMULATION, times modelled: exchanges of a decode step, over vanilla contiguous", columns, rows)

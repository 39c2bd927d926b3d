"""Real runs over links of a set rate: each rank in a network namespace of its own, joined by a bridge.

Needs root and iproute2 (Linux); elsewhere the part says so and is left out. The time of a decode step is compared with
what the cost model makes of the same counts, with alpha measured on the very links and beta the set rate."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.common import show

RATES, FREE = (100.0, 20.0, 4.0), 10_000.0  # Mbit/s
MODES = ("vanilla", "home", "coherent")
_NUMBERS = itertools.count()
STEPS, ROUNDS = 12, 3


def possible() -> str | None:
    """Why it cannot be done here, or None."""
    if not (shutil.which("ip") and shutil.which("tc")):
        return "iproute2 is not installed"
    done = _ip("netns", "add", "intarsia-try", check=False)
    _ip("netns", "del", "intarsia-try", check=False)
    return None if done.returncode == 0 else "network namespaces cannot be made (root is needed)"


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


@contextmanager
def linked(ranks: int, mbit: float) -> Iterator[list[list[str]]]:
    """Namespaces with a link of `mbit` out of each; words to put before a command, by rank."""
    number = next(_NUMBERS)  # what the last one had may not be gone yet
    name, bridge = f"ix{os.getpid()}-{number}", f"ixb{os.getpid() % 10000}x{number}"
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for rank in range(ranks):
            mark = f"{os.getpid() % 10000}x{number}{rank}"
            space, inner, outer = f"{name}-{rank}", f"ixi{mark}", f"ixo{mark}"
            _ip("netns", "add", space)
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            _ip("link", "set", inner, "netns", space, "name", "eth0")
            _ip("link", "set", outer, "master", bridge, "up")
            _ip("-n", space, "addr", "add", f"10.77.0.{rank + 1}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            rate = ["tbf", "rate", f"{mbit:g}mbit", "burst", "16kb", "latency", "200ms"]
            subprocess.run(["tc", "-n", space, "qdisc", "add", "dev", "eth0", "root", *rate], check=True)
        yield [["ip", "netns", "exec", f"{name}-{rank}"] for rank in range(ranks)]
    finally:
        for rank in range(ranks):
            _ip("netns", "del", f"{name}-{rank}", check=False)
        _ip("link", "del", bridge, check=False)


def run(folder: Path, rates: tuple[float, ...] = RATES) -> None:
    """Two ranks, the networks placed, every mode: a step's time on links without a limit, then with one, beside what is
    modelled: the time without a limit, less its exchanges' latency, plus latency and bytes of the limited link."""
    if why := possible():
        print(f"limited links: left out, {why}")
        return
    from bench.moe.runtime import networks, placements

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for network in networks(folder, Path(scratch)):
            placement = Path(scratch) / "placement.json"
            placements(network, 2)["placed"].save(placement, force=True)
            told = Path(scratch) / "task.json"
            task = {
                "folder": str(network.folder),
                "prompts": [p[:8] for p in network.prompts],
                "placement": str(placement),
            }
            told.write_text(json.dumps(task))
            free = _measured(told, FREE)
            for mode, found in free.items():
                rows.append(
                    [network.name, "no limit", mode, f"{found['bytes']:,.0f}", f"{1e3 * found['seconds']:.0f}", ""]
                )
            for mbit in rates:
                for mode, found in _measured(told, mbit).items():
                    base = free[mode]
                    modelled = (
                        base["seconds"]
                        - base["collectives"] * base["alpha"]
                        + found["collectives"] * found["alpha"]
                        + found["bytes"] / (mbit * 1e6 / 8)
                    )
                    rows.append([network.name, f"{mbit:g} Mbit/s", mode, f"{found['bytes']:,.0f}",
                                 f"{1e3 * found['seconds']:.0f}", f"{1e3 * modelled:.0f}"])  # fmt: skip
    columns = ["2 ranks, placed", "link", "mode", "bytes of the busiest rank, a step", "step ms", "modelled ms"]
    show("Links of a set rate: a decode step, measured and modelled", columns, rows)


def _measured(task: Path, mbit: float) -> dict[str, dict[str, float]]:
    with linked(2, mbit) as before:
        processes = []
        for rank, words in enumerate(before):
            env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
                   "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29511", "GLOO_SOCKET_IFNAME": "eth0",
                   "LINK_BYTES": str(mbit * 1e6 / 8)}  # fmt: skip
            command = [*words, sys.executable, "-m", "bench.moe.linked", str(task)]
            processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        try:
            said = [p.communicate(timeout=600)[0] for p in processes]
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()
    return json.loads(said[0].splitlines()[-1])


def rank_main(task: Path) -> None:
    """What each rank does: all modes one after the other; rank 0 prints."""
    import torch
    import torch.distributed as dist

    from intarsia.moe.placement import Placement
    from intarsia.moe.runtime import Link, Request, Runtime, Shard, Wire, joined

    told = json.loads(task.read_text())
    placement, found = Placement.open(told["placement"]), {}
    with joined(timeout=120) as place:
        alpha = torch.tensor([_alpha(Wire(place.rank, place.ranks))], dtype=torch.float64)
        dist.all_reduce(alpha, op=dist.ReduceOp.MAX)  # all must have the same room for rows
        link = Link("set", float(alpha), float(os.environ["LINK_BYTES"]))
        wire = Wire(place.rank, place.ranks, fuse_bytes=link.fuse_bytes)
        runtime = Runtime(Shard.load(told["folder"], placement, place.rank), wire)
        for number, mode in enumerate(MODES):
            times, most = [], torch.zeros(1, dtype=torch.float64)
            for turn in range(ROUNDS + 1):
                runtime.use(mode)
                first = 1000 * (number * (ROUNDS + 1) + turn)
                runtime.admit([Request(first + i, tuple(p), STEPS + 1) for i, p in enumerate(told["prompts"])])
                begun = time.perf_counter()
                while runtime.step():
                    pass
                times.append((time.perf_counter() - begun) / STEPS)
            counters = wire.traffic.decode
            most[0] = counters.bytes / STEPS
            dist.all_reduce(most, op=dist.ReduceOp.MAX)
            found[mode] = {
                "seconds": statistics.median(times[1:]), "bytes": float(most), "alpha": link.alpha,
                "collectives": counters.collectives / STEPS,
            }  # fmt: skip
    if place.rank == 0:
        print(json.dumps(found))


def _alpha(wire: Any) -> float:
    """Seconds of an exchange of 8 bytes."""
    import torch

    part, times = torch.zeros(8, dtype=torch.uint8), []
    for _ in range(30):
        begun = time.perf_counter()
        wire.exchange([part] * wire.ranks, [8] * wire.ranks)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[5:])


if __name__ == "__main__":
    rank_main(Path(sys.argv[1]))

"""The server beside `transformers serve`: the same small model, prompts and tokens, in turn, on one machine.

    python -m bench.server [--quick] [--json FILE] [--threads 2] [--streams 1 8 32] [--parts speed ending memory]

Needs what `transformers[serving]` asks for. Greedy, 32-bit, chats that go on to the last token; throughput counts the
tokens of the texts that came. The peer runs as it comes, and with continuous batching where that runs on this machine.
--quick: one round, 1 and 8 streams, 200 requests for the memory."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bench.common import alternate, parser, show, start, write
from bench.server import ending
from bench.server.load import prompts, quantile, talk
from bench.server.processes import Running, commands, running

PARTS = ("speed", "ending", "memory")
MODEL = "smollm2-135m"


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments.add_argument("--streams", nargs="+", type=int, default=None, help="at the same time (default: 1 8 32)")
    arguments.add_argument("--tokens", type=int, default=48, help="made for each request")
    arguments.add_argument("--model", default=MODEL, help="as `intarsia serve` takes it")
    arguments.set_defaults(threads=2)
    options = arguments.parse_args()
    start(options)
    streams = options.streams or ([1, 8] if options.quick else [1, 8, 32])
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-server-") as scratch:
        folder = Path(scratch) / "model"
        tokenizer = saved(options.model, folder)
        known = commands(folder, options.threads, max(32, *streams))

        def open_one(stack: contextlib.ExitStack, name: str) -> Running:
            command, model = known[name]
            return stack.enter_context(running(name, command, model, options.threads, Path(scratch) / f"{name}.log"))

        with contextlib.ExitStack() as stack:
            servers: dict[str, Running] = {}
            for name in known if "speed" in options.parts else ("intarsia",):
                try:
                    servers[name] = open_one(stack, name)
                except RuntimeError as error:
                    print(f"{name} does not run here: {error}")
                    continue
                found[f"seconds_to_first_answer_{name}"] = servers[name].started
            if "speed" in options.parts:
                found |= speed(servers, streams, 1 if options.quick else 3, options.tokens, tokenizer)
            if "memory" in options.parts:
                # Little room for beginnings of prompts: it is full after some hundred requests, and only leaks go on.
                command, model = commands(folder, options.threads, 8, memory=64)["intarsia"]
                with running("memory", command, model, options.threads, Path(scratch) / "memory.log") as server:
                    slope, gained = ending.growth(server, 200 if options.quick else 2000)
                found |= {"memory_bytes_a_request": slope, "memory_gained_mb": gained}
            if "ending" in options.parts:
                counts = ending.lost(servers["intarsia"], 8, 5.0, options.tokens)
                found |= {f"requests_{what}": float(count) for what, count in counts.items()}
    write(found, options.json)


def saved(source: str, folder: Path) -> Any:
    """Save a model as a plain folder in 32 bits; its tokenizer."""
    from intarsia.models import load

    model = load(source)
    model.save(folder)
    return model.tokenizer


def speed(
    servers: dict[str, Running], streams: list[int], rounds: int, tokens: int, tokenizer: Any
) -> dict[str, float]:
    """Tokens a second and seconds of waiting, by how many ask at a time; answers of all servers are compared."""
    found: dict[str, float] = {}
    for many in streams:
        said = prompts(max(2, many if many > 8 else 2 * many))
        rates: dict[str, list[float]] = {name: [] for name in servers}
        waits: dict[str, list[Any]] = {name: [] for name in servers}
        texts: dict[str, list[str]] = {}
        asks = {name: partial(talk, server, said, many, tokens) for name, server in servers.items()}
        for name, ask in alternate(asks, rounds, warmup=0):
            seconds, answers = ask()
            made = sum(len(tokenizer(a.text, add_special_tokens=False)["input_ids"]) for a in answers)
            rates[name].append(made / seconds)
            waits[name] += answers
            texts[name] = [a.text for a in answers]
        rows = []
        for name in servers:
            first, whole = [a.first for a in waits[name]], [a.whole for a in waits[name]]
            same = statistics.mean(a == b for a, b in zip(texts[name], texts["intarsia"], strict=True))
            rate = statistics.median(rates[name])
            found |= {
                f"tokens_a_second_{name}_{many}": rate,
                f"first_token_p50_{name}_{many}": quantile(first, 0.5),
                f"first_token_p95_{name}_{many}": quantile(first, 0.95),
                f"whole_p50_{name}_{many}": quantile(whole, 0.5),
                f"whole_p95_{name}_{many}": quantile(whole, 0.95),
                f"same_answers_{name}_{many}": same,
            }
            if name != "intarsia":
                each = [a / b for a, b in zip(rates["intarsia"], rates[name], strict=True)]
                over = "transformers_serve" + name.removeprefix("transformers").replace("-", "_")
                found[f"throughput_over_{over}_{many}"] = statistics.median(each)
            rows.append([
                name, f"{rate:.1f}", f"{quantile(first, 0.5):.2f}", f"{quantile(first, 0.95):.2f}",
                f"{quantile(whole, 0.5):.2f}", f"{quantile(whole, 0.95):.2f}", f"{same:.0%}",
            ])  # fmt: skip
        columns = ("", "tokens/s", "first p50 s", "first p95 s", "whole p50 s", "whole p95 s", "same text")
        show(f"{many} streams, {tokens} tokens each", columns, rows)
    return found


if __name__ == "__main__":
    main()

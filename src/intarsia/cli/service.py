"""`intarsia serve`: models behind an API that every OpenAI client speaks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intarsia.cli.base import Command, settings_of
from intarsia.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from intarsia.server.registry import Version


@click.command(
    "serve",
    cls=Command,
    example="intarsia serve smollm2-135m --port 8000\nintarsia serve runs/emotion --name emotion --keys keys.sqlite",
    help="""Serve models behind an API that every OpenAI client speaks.

    Chats, texts, vectors, tools, forms of answers, likelihoods; `/` is a page to try it, `/docs` tells all. Connections
    are taken at once, answered as soon as the model is there. SIGTERM or Ctrl-C: what is running is finished first.

    MODEL: a run or a bundle, a folder of versions with a link `current` (which is followed while the server runs), a
    known name, a hub id, a folder, a .gguf file, `openai:http://host/v1#name` for one behind another server.""",
)
@click.argument("models", nargs=-1, metavar="MODEL...")
@click.option("--name", "names", multiple=True, help="What clients call the model; once for each. Unset: its own name.")
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=PATH", help="A LoRA folder, served as model NAME.")
@click.option(
    "--engine",
    help="What runs it: torch, or an export: gguf, onnx-genai, openvino. gguf of a known name or a hub id is the file "
    "that it comes as, or is made (8 bits) and kept in the cache.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; unset: torch's choice.")
@click.option("--max-batch", type=click.IntRange(1), default=32, show_default=True, help="Requests worked on at once.")
@click.option(
    "--memory",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Megabytes for keys and values: half for requests, half for beginnings of prompts that may come again.",
)
@click.option("--detector", help="A detector, for /v1/detect: a folder, or one that comes along (english).")
@click.option("--labeller", help="A model that labels, for /v1/label: a folder of `adaptation dialogue` or `label`.")
@click.option("--store", type=click.Path(path_type=Path), help="A store of documents, for /v1/store/search.")
@click.option("--graph", type=click.Path(path_type=Path), help="A knowledge graph's folder, for /v1/knowledge.")
@click.option("--flows", help="A Python file or module whose flows are served at /flows/NAME.")
@click.option("--mcp/--no-mcp", default=True, show_default=True, help="Tools for other programs at /mcp.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option(
    "--keys", type=click.Path(path_type=Path), help="The file of keys; unset: the user's own, if there is one."
)
@click.option("--no-keys", is_flag=True, help="Anybody who can reach it may use it.")
@click.option("--cors", "origins", multiple=True, metavar="ORIGIN", help="A page that may ask from a browser.")
@click.option("--allow-host", "hosts", multiple=True, help="A name that the server goes by; loopback's it knows.")
@click.option("--log", type=click.Path(path_type=Path), help="Append a line of JSON for each request.")
@click.option("--log-content", is_flag=True, help="Have prompts and answers in the log, too.")
@click.option("--max-body", type=click.IntRange(1), default=8, show_default=True, help="Megabytes of a request.")
@click.option("--grace", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds for requests to end.")
def serve(models: tuple[str, ...], **given: Any) -> None:
    begun = time.perf_counter()
    names, adapters = _names(models, given["names"]), _adapters(given["adapters"], models)
    if not models and not any(given[what] for what in ("detector", "labeller", "store", "graph", "flows")):
        raise BadInput("nothing to serve: give a model, or --detector, --labeller, --store, --graph or --flows")
    _check_extra("serve")
    from intarsia.server import sweeping

    sweeping.hold()
    # The slow part (torch, weights) goes on while the server is put together and begins to listen.
    loading = {name: _begun(source, name, given, adapters) for source, name in zip(models, names, strict=True)}
    from intarsia.server.listening import listening
    from intarsia.server.running import serve as run
    from intarsia.server.setting_up import Wanted, set_up

    keys = _keys(given)
    listener = listening(given["host"], given["port"])
    where = f"http://{_shown(given['host'])}:{listener.getsockname()[1]}"
    quiet = settings_of().quiet or settings_of().json

    def told(line: str) -> None:
        if not quiet:
            click.echo(line)

    wanted = Wanted(
        loading=loading, sources=dict(zip(names, models, strict=True)), adapters=list(adapters), keys=keys,
        told=lambda line: told(f"{line} after {time.perf_counter() - begun:.1f} s"),
        **{name: given[name] for name in (
            "threads", "max_batch", "memory", "engine", "detector", "labeller", "store", "graph", "flows", "mcp",
            "host", "hosts", "origins", "log", "log_content", "max_body")},
    )  # fmt: skip
    app, serving = set_up(wanted)
    who = "anybody who reaches it may use it" if keys is None else f"keys: {keys.path}"

    @contextlib.asynccontextmanager
    async def announced() -> AsyncIterator[None]:
        # Only now: whoever reads the line may stop the server at once, and that must find it ready to end in order.
        told(f"serving {', '.join([*names, *adapters]) or 'no model'}: {where}/ (OpenAI's API: {where}/v1; {who})")
        yield

    serving.parts.insert(0, announced)
    serving.parts.append(sweeping.after(list(loading.values())))
    run(app, serving, listener, grace=given["grace"], log_level="debug" if settings_of().debug else "warning")
    if serving.failed is not None:
        raise serving.failed
    if not all(future.done() for future in loading.values()):
        # A library that is being loaded in a thread cannot be ended in order: it would abort the process.
        sys.stdout.flush()
        os._exit(0)


@click.command(
    "mcp",
    cls=Command,
    example="intarsia mcp --store handbook --graph runs/facts",
    help="""Give tools to another program over standard input (the Model Context Protocol).

    Which tools there are depends on what is given: `generate` and `explain` with a model, `search` with a store,
    `ask_graph` and `retrieve_facts` with a graph, `detect` with a detector. The same tools over HTTP: `intarsia serve`.

    MODEL: as for `intarsia serve`.""",
)
@click.argument("models", nargs=-1, metavar="MODEL...")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; unset: torch's choice.")
@click.option("--detector", help="A detector: a folder, or one that comes along (english).")
@click.option("--store", type=click.Path(path_type=Path), help="A store of documents.")
@click.option("--graph", type=click.Path(path_type=Path), help="A knowledge graph's folder.")
def mcp(models: tuple[str, ...], **given: Any) -> None:
    if not models and not any(given[what] for what in ("detector", "store", "graph")):
        raise BadInput("no tools: give a model, --detector, --store or --graph")
    _check_extra("mcp")
    import asyncio

    from intarsia.server.setting_up import Wanted, over_stdio

    names = _names(models, ())
    given |= {"max_batch": 8, "memory": 512, "engine": None}
    loading = {name: _begun(source, name, given, {}) for source, name in zip(models, names, strict=True)}
    wanted = Wanted(
        loading=loading, sources=dict(zip(names, models, strict=True)), threads=given["threads"],
        detector=given["detector"], store=given["store"], graph=given["graph"],
    )  # fmt: skip
    asyncio.run(over_stdio(wanted))


PACKAGES = ("fastapi", "uvicorn", "mcp", "prometheus_client", "opentelemetry.sdk.trace")


def _check_extra(what: str) -> None:
    """Raise `MissingExtra` that says what is lacking."""
    # What is there is soon found; only else packages are read for what they want, which takes a while.
    if all(_there(name) for name in PACKAGES):
        return
    from intarsia.recipes.extras import lacking

    raise MissingExtra(f"{what} ({', '.join(lacking('server'))})", "server")


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # not even what it lies in
        return False


def _names(models: tuple[str, ...], given: tuple[str, ...]) -> list[str]:
    if given and len(given) != len(models):
        raise BadInput(f"{len(models)} models and {len(given)} names: give --name once for each, or never")
    names = list(given) or [Path(m).resolve().name if Path(m).exists() else m.rpartition("#")[2] or m for m in models]
    if len(set(names)) < len(names):
        raise BadInput(f"two models would be called {', '.join(names)}: give each a --name")
    return names


def _adapters(given: tuple[str, ...], models: tuple[str, ...]) -> dict[str, Path]:
    out = {}
    for text in given:
        name, _, path = text.partition("=")
        if not name or not path:
            raise BadInput(f"--adapter {text}: give a name and a folder, as in law=adapters/law")
        out[name] = Path(path)
    if out and len(models) != 1:
        raise BadInput(f"--adapter is for one model, {len(models)} are given: serve the others elsewhere")
    return out


def _begun(source: str, name: str, given: dict[str, Any], adapters: dict[str, Path]) -> Future[Version]:
    """A model that is on its way."""
    future: Future[Version] = Future()

    def work() -> None:
        try:
            from intarsia.server.versions import open_version

            future.set_result(
                open_version(
                    source, name, threads=given["threads"], max_batch=given["max_batch"], engine=given["engine"],
                    memory=given["memory"], adapters=adapters,
                )
            )  # fmt: skip
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=f"load {name}", daemon=True).start()
    return future


def _keys(given: dict[str, Any]) -> Any:
    """The keys, where there are any. Raises `BadInput` for a server that strangers could reach without."""
    from intarsia.server.guarding import is_loopback
    from intarsia.server.keys.store import Keys, default_file

    if given["no_keys"]:
        if given["keys"] is not None:
            raise BadInput("--keys and --no-keys exclude each other")
        return None
    path = given["keys"] or default_file()
    if given["keys"] is not None or path.is_file():
        return Keys(path)
    if not is_loopback(given["host"]):
        raise BadInput(
            f"others can reach {given['host']}: make keys (`intarsia keys add NAME`), or let anybody in with --no-keys"
        )
    return None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host

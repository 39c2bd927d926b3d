"""Commands that go on until they are stopped: models behind HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from intarsia.cli.base import Command, settings_of
from intarsia.cli.progress import shown
from intarsia.errors import MissingExtra


@click.command(
    "serve",
    cls=Command,
    example="intarsia moe serve allenai/OLMoE-1B-7B-0924 --ranks 2",
    help="""Serve a mixture-of-experts model from several processes over HTTP.

    Each process loads only the experts placed on it. Requests join and leave between steps. OpenAI's
    `/v1/completions` (whole or streamed) and `/v1/models`, `/readyz` and `/docs`; stop it with Ctrl-C.

    MODEL: a folder with safetensors, a known name or a hub id.""",
)
@click.argument("model")
@click.option("--ranks", type=click.IntRange(1), help="Processes; unset: as many as the placement has devices, or 2.")
@click.option("--placement", type=click.Path(path_type=Path), help="A placement.json; unset: contiguous.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "vanilla", "home", "coherent"]),
    default="auto",
    show_default=True,
    help="How tokens and experts meet; see `intarsia moe run --help`.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option(
    "--accelerator", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="One GPU each."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every random choice.")
def serve_experts(model: str, **given: Any) -> None:
    from intarsia.recipes.extras import lacking

    if missing := [*lacking("server"), *lacking("moe")]:
        raise MissingExtra(f"moe serve ({', '.join(missing)})", "moe,server")
    from intarsia.moe.checkpoint import Checkpoint
    from intarsia.moe.run import RunConfig
    from intarsia.moe.running import start

    host, port = given.pop("host"), given.pop("port")
    seed = given.pop("seed")
    from intarsia.server.listening import listening

    listener = listening(host, port)
    with shown():
        checkpoint = Checkpoint.open(model)
        engine = start(checkpoint, RunConfig(**{k: v for k, v in given.items() if v is not None}), seed)
    with engine:
        name = checkpoint.folder.name if Path(checkpoint.name).exists() else checkpoint.name
        for row in engine.report():
            click.echo(
                f"rank {row['rank']}: {row['expert_bytes'] / 1e6:,.0f} MB of experts, "
                f"{row['replicated_bytes'] / 1e6:,.0f} MB replicated",
                err=True,
            )
        if engine.choice is not None:
            click.echo(engine.choice.reason, err=True)
        where = f"http://{host}:{listener.getsockname()[1]}"
        click.echo(f"serving {name} on {engine.placement.devices} ranks ({engine.mode}): {where}/v1/completions")
        _serve(engine, name, listener)


def _serve(engine: Any, name: str, listener: Any) -> None:
    from intarsia.server.pieces import PiecesBackend
    from intarsia.server.running import serve
    from intarsia.server.service import Serving, service

    serving = Serving()
    backend = PiecesBackend(engine, name, context_length=engine.facts["positions"], alive=lambda: engine.alive)
    serving.registry.add(name, backend)
    serve(service(serving, name), serving, listener, log_level=_log_level())


def _log_level() -> str:
    return "debug" if settings_of().debug else "warning"


@click.command(
    "serve",
    cls=Command,
    example="intarsia adaptation serve emotions --port 8000",
    help="""Serve a model that labels turns or texts over HTTP.

    `POST /v1/label` takes one dialogue (`{"turns": [{"speaker": "Ann", "text": "I got the job!"}]}`) or texts, and
    gives a distribution over the labels for each; `/` is a page to try it. Stop it with Ctrl-C.

    MODEL: a folder that `adaptation dialogue` or `adaptation label` made.""",
)
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
def serve_labels(model: str, host: str, port: int) -> None:
    def made(name: str) -> Any:
        from intarsia.models import load
        from intarsia.server.labelling import app

        return app(load(model), name)

    _serve_small(model, host, port, made, "adaptation serve", ("server",), "/v1/label")


@click.command(
    "serve",
    cls=Command,
    example="intarsia detection serve mine --port 8000",
    help="""Serve a detector over HTTP.

    `POST /v1/detect` takes `{"text": ...}`, and if you like a domain, a budget (`alpha`) and references, and gives the
    verdict with its passages; `/v1/detect/batch` many texts; `/v1/calibrate` adds a bank of people's texts,
    `/v1/references` writes on a topic; `/` is a page, `/docs` tells all. Texts are not kept. Stop it with Ctrl-C.

    DETECTOR: a folder that `detection train` made, or one that comes along.""",
)
@click.argument("detector", default="english")
@click.option("--writer", help="What writes references, as for `detection references`; unset: the detector's model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
def serve_detector(detector: str, writer: str | None, host: str, port: int) -> None:
    def made(name: str) -> Any:
        from intarsia.detection import Detector
        from intarsia.server.detecting import app

        opened = Detector.open(detector)
        _ = opened.kept  # before the first request, and so that what is wrong with it is told now
        return app(opened, name, writer=writer)

    _serve_small(detector, host, port, made, "detection serve", ("server", "detect"), "/v1/detect")


def _serve_small(
    source: str, host: str, port: int, made: Callable[[str], Any], what: str, extras: tuple[str, ...], route: str
) -> None:
    """Load, say where it is to be found, and serve until stopped."""
    from intarsia.recipes.extras import lacking

    if missing := [name for extra in extras for name in lacking(extra)]:
        raise MissingExtra(f"{what} ({', '.join(missing)})", ",".join(extras))
    from intarsia.server.listening import listening
    from intarsia.server.running import serve
    from intarsia.server.service import Serving, guarded

    listener = listening(host, port)
    name = Path(source).name if Path(source).exists() else source
    with shown():
        application = made(name)
    click.echo(f"serving {name}: http://{host}:{listener.getsockname()[1]}/ (POST {route})")
    serving = Serving()
    serve(guarded(application, serving, body=64 * 2**20), serving, listener, log_level=_log_level())

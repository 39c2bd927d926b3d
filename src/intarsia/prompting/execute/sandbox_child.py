"""The process in which the code of `sandbox.py` runs. Started as a script, with Python's own modules alone: it shuts
itself in, says what holds, and runs the code. What it says comes from where the code was: nobody should trust it
further than that."""

from __future__ import annotations

import ast
import json
import linecache
import os
import sys
import traceback
from pathlib import Path
from typing import Any

REFUSED = 97  # exit code: nothing keeps the code from the network


def main() -> int:
    """Shut this process in, then run what standard input asks for; the exit code."""
    settings = json.loads(sys.stdin.read())
    channel = settings["channel"]
    os.environ.clear()
    os.chdir(settings["folder"])
    holds = shut_in(settings)
    _tell(channel, {"holds": holds})
    if not holds["network"] and not settings["unsafe"]:
        return REFUSED
    return run(settings["code"], channel, settings["most"])


def shut_in(settings: dict[str, Any]) -> dict[str, list[str]]:
    """What keeps the code from the network, from files outside its folder, and from other processes."""
    kernel: dict[str, Any] = {"__name__": "kernel"}
    exec(compile(Path(settings["kernel"]).read_text(), settings["kernel"], "exec"), kernel)
    holds: dict[str, list[str]] = {"network": [], "files": [], "processes": []}
    linux = sys.platform == "linux"
    if settings["wrapped"]:
        holds = {"network": ["bubblewrap"], "files": ["bubblewrap"], "processes": ["bubblewrap"]}
    elif linux and kernel["without_network"]():
        holds["network"].append("namespace")
    kernel["limited"](*settings["limits"], processes=linux)
    if linux:
        if kernel["within_folders"](settings["readable"], [settings["folder"], "/dev/null"]):
            holds["files"].append("landlock")
        if kernel["without_calls"]():
            holds["network"].append("seccomp")
            holds["processes"].append("seccomp")
        else:
            kernel["limited"](*settings["limits"], processes=False)
    return holds


def run(code: str, channel: int, most: int) -> int:
    """Run it, and tell the value of its last expression. Gives an exit code as Python does."""
    linecache.cache["<code>"] = (len(code), None, code.splitlines(keepends=True), "<code>")
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        tree = ast.parse(code, "<code>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<code>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<code>", "eval"), names)
            if value is not None:
                _tell(channel, {"value": _shown(value, most), "data": _data(value, most)})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        here = error.__traceback__
        inside = here.tb_next if here is not None else None
        traceback.print_exception(type(error), error, inside)
        return 1
    return 0


def _shown(value: Any, most: int) -> str:
    text = repr(value)
    return text if len(text) <= most else text[:most] + "..."


def _data(value: Any, most: int) -> list[Any]:
    """The value in a list, where JSON can say it."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return []
    return [value] if len(text) <= most else []


def _tell(channel: int, what: dict[str, Any]) -> None:
    data = json.dumps(what).encode() + b"\n"
    while data:
        data = data[os.write(channel, data) :]


if __name__ == "__main__":
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
    os._exit(code & 0xFF)  # nothing that the code left behind is run any more

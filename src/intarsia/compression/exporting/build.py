"""Runs ONNX Runtime GenAI's model builder: `python build.py FOLDER OUT '{"option": "value"}'`.

A program of its own, run in its own process: the builder puts modules of very common names on the path, changes
global settings and talks a lot. It must not import Intarsia."""

import contextlib
import json
import sys
from pathlib import Path


def main(source: str, out: str, options: str) -> None:
    """Build the 4-bit model for the CPU in `out` from the Hugging Face folder `source`."""
    import onnxruntime_genai

    # The builder's modules import each other by bare names, so its folder must be on the path.
    sys.path.insert(0, str(Path(onnxruntime_genai.__file__).parent / "models"))
    from builder import create_model, parse_extra_options

    cache = str(Path(out) / "cache")
    pairs = [f"{key}={value}" for key, value in json.loads(options).items()]
    # Its chatter goes to stderr: it is shown only when it fails.
    with contextlib.redirect_stdout(sys.stderr):
        extra = parse_extra_options("", source, out, "int4", "cpu", cache, pairs)
        create_model("", source, out, "int4", "cpu", cache, **extra)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Peak memory of loading and running a model, in a process of its own: this one's peak holds everything done before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from intarsia.errors import IntarsiaError


def peak_memory(folder: Path, engine: str, prompt_tokens: int, new_tokens: int, threads: int | None = None) -> int:
    """Bytes of resident memory at the peak of: import, load `folder` in `engine` (`torch` or an export's), one prompt
    of `prompt_tokens` tokens and `new_tokens` after it.

    Raises `IntarsiaError` with the last line of the new process's error when it fails."""
    task = json.dumps([str(folder), engine, prompt_tokens, new_tokens, threads])
    # The saved folder is complete: nothing has to be asked of the hub.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "intarsia.measure.memory", task],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise IntarsiaError(f"peak memory of {engine} was not measured: {lines[-1]}")
    return int(done.stdout.strip().splitlines()[-1])


def own_peak() -> int:
    """Bytes of resident memory this process had at most."""
    try:
        # Not `ru_maxrss` where this exists: a new process inherits that one's value from its parent.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main() -> None:
    folder, engine, prompt_tokens, new_tokens, threads = json.loads(sys.argv[1])
    from intarsia.measure import speed

    if engine == "torch":
        import torch

        from intarsia.models import load

        if threads:
            torch.set_num_threads(threads)
        speed.torch_lap(load(folder), prompt_tokens, new_tokens)()
    else:
        from intarsia.models.runtime import open_runtime

        speed.runtime_lap(open_runtime(folder, threads), prompt_tokens, new_tokens)()
    print(own_peak())


if __name__ == "__main__":
    _main()

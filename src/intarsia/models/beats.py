"""Other libraries' progress bars, turned into `intarsia.progress` beats."""

from __future__ import annotations

import io
from typing import Any

from intarsia.progress import tell


def beats(task: str) -> type:
    """A tqdm class that draws nothing and tells its beats as `task`; for libraries that take or use a tqdm."""
    from tqdm import tqdm

    class Beats(tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            kwargs.pop("name", None)
            # A disabled bar does not count; one that draws into nothing does.
            kwargs.update(file=io.StringIO(), disable=False, mininterval=0.2)
            super().__init__(*args, **kwargs)

        def display(self, *args: Any, **kwargs: Any) -> None:
            tell(task, int(self.n), int(self.total) if self.total else None)

    return Beats

"""Teaching transformers the quantization method "intarsia", without importing transformers for it.

Importing transformers takes seconds, and a command line that only lists its techniques must not pay them. So the
registration waits until transformers' own quantizers are imported by whoever needs them."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from typing import Any

TARGET = "transformers.quantizers.auto"


class _Registering(importlib.abc.Loader):
    def __init__(self, inner: Any):
        self.inner = inner

    def create_module(self, spec: Any) -> Any:
        return self.inner.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.inner.exec_module(module)
        _register()


class _Waiting(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


def _register() -> None:
    import intarsia.compression.convolution.hf
    import intarsia.compression.quantization.hf  # noqa: F401


def install() -> None:
    """Register now if transformers' quantizers are imported, else as soon as they are."""
    if TARGET in sys.modules:
        _register()
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())

"""`watching`: what modules are given and give, while the network runs: inputs of every linear layer in one pass."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.sites.probe import first_output, first_tensor
from intarsia.sites.sitemap import of

if TYPE_CHECKING:
    from intarsia.models import Model

Seen = Callable[[str, Tensor, Tensor], None]
_locks: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def watching(model: Model | nn.Module, modules: Mapping[str, nn.Module], seen: Seen) -> Iterator[None]:
    """Inside, each time one of the modules has run, `seen(name, given, gave)` is told of its first tensor in and out.

    The tensors are the network's own: `seen` must not change them, and copies what it wants to keep. With gradients
    on they are parts of the graph (`gave.register_hook` sees the gradient there). Nothing is left on the network
    afterwards, also when the body raises. Works around `read`, `run`, `resume`, `generate` or the network itself.

    A network may be given bare, and one without blocks (a convolutional one) can be watched, too.

    Raises `BadInput` for a module that is no part of the network."""
    network = model if isinstance(model, nn.Module) else model.network
    inside = set(network.modules())
    for name, module in modules.items():
        if module not in inside:
            raise BadInput(f"'{name}' ({type(module).__name__}) is no module of this network")
    with _lock_of(network), contextlib.ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(_telling(name, seen), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _lock_of(network: nn.Module) -> Any:
    """The lock of the site map; of a network that has no blocks to map, one of its own."""
    if next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None) is None:
        return of(network).lock
    try:
        return of(network).lock
    except BadInput:
        if type(network).__name__ == "OptimizedModule":
            raise
        return _locks.setdefault(network, threading.RLock())


def _telling(name: str, seen: Seen) -> Any:
    def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        given, gave = first_tensor(args, kwargs), first_output(output)
        if given is not None and gave is not None:
            seen(name, given, gave)

    return hook

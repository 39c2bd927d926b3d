"""Optional dependencies: which extras there are, which are installed, and how to get one."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def extras() -> dict[str, tuple[str, ...]]:
    """Every extra of the installed package and the distributions it asks for, extras of extras resolved."""
    from packaging.requirements import Requirement

    names = metadata.metadata("intarsia").get_all("Provides-Extra") or []
    required = [Requirement(text) for text in metadata.requires("intarsia") or []]

    def of(extra: str) -> list[str]:
        found: list[str] = []
        for requirement in required:
            if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.name == "intarsia":
                found += [name for inner in sorted(requirement.extras) for name in of(inner)]
            else:
                found.append(requirement.name)
        return found

    return {name: tuple(of(name)) for name in names}


def lacking(extra: str) -> list[str]:
    """The distributions of `extra` that are not installed (empty: all there, or no such extra)."""
    out = []
    for name in extras().get(extra, ()):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            out.append(name)
    return out

"""Intarsia: everything a team does to a pretrained transformer after it was pretrained.

    import intarsia as ia
    model = ia.load("smollm2-135m")
    acts = ia.read(model, ["The Eiffel Tower is in"], at="layers.*.resid_post")

Names are imported when first used, so that `import intarsia` stays quick."""

from __future__ import annotations

from intarsia.lazy import lazily

__version__ = "0.1.0"

_HOMES = {
    "load": "intarsia.models",
    "wrap": "intarsia.models",
    "Model": "intarsia.models",
    "Identity": "intarsia.models",
    "read": "intarsia.sites",
    "run": "intarsia.sites",
    "generate": "intarsia.sites",
    "resume": "intarsia.sites",
    "sweep": "intarsia.sites",
    "Replace": "intarsia.sites",
    "Add": "intarsia.sites",
    "Scale": "intarsia.sites",
    "Apply": "intarsia.sites",
    "Activations": "intarsia.sites",
    "Edit": "intarsia.sites",
    "Config": "intarsia.catalog",
    "technique": "intarsia.catalog",
    "Finding": "intarsia.report",
    "Budget": "intarsia.prompting.base",
    "open_backend": "intarsia.prompting.base",
    "IntarsiaError": "intarsia.errors",
    "BadInput": "intarsia.errors",
}
__all__ = ["__version__", *_HOMES]

__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)

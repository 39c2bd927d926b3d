"""Lenses: what each layer would predict if it were the last one."""

from intarsia.interpretation.lenses.lens import Lens, LensConfig, lens

__all__ = ["Lens", "LensConfig", "lens"]

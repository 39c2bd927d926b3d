"""Lenses: what each layer would predict, and maps fitted so that it can be read."""

from intarsia.interpretation.lenses.comparison import CompareLensesConfig, LensComparison, compare_lenses
from intarsia.interpretation.lenses.fit import FitLens, FitLensConfig, fit_lens
from intarsia.interpretation.lenses.lens import Lens, LensConfig, lens
from intarsia.interpretation.lenses.maps import LensMaps

__all__ = [
    "CompareLensesConfig",
    "FitLens",
    "FitLensConfig",
    "Lens",
    "LensComparison",
    "LensConfig",
    "LensMaps",
    "compare_lenses",
    "fit_lens",
    "lens",
]

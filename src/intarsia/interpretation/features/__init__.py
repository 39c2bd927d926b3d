"""Sparse dictionary features: a model's states as sums of a few out of many directions."""

from intarsia.interpretation.features.fit_sae import FitSAE, FitSAEConfig, fit_sae
from intarsia.interpretation.features.sae import SAE
from intarsia.interpretation.features.sae_features import SAEFeatures, SAEFeaturesConfig, sae_features

__all__ = ["SAE", "FitSAE", "FitSAEConfig", "SAEFeatures", "SAEFeaturesConfig", "fit_sae", "sae_features"]

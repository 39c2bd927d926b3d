"""Attribution: which words of a text speak for what the model says, by many methods under one roof."""

from intarsia.interpretation.attribution.finding import AttributedText, Attribution, Piece
from intarsia.interpretation.attribution.gradients import (
    gradient,
    gradient_x_input,
    integrated_gradients,
    lrp,
    smooth_grad,
)
from intarsia.interpretation.attribution.methods import METHODS, Method, attribute_one
from intarsia.interpretation.attribution.perturbation import (
    kernel_shap,
    leave_one_out,
    lime,
    occlusion,
    partition_shap,
    random,
    shapley_sampling,
)

__all__ = [
    "METHODS",
    "AttributedText",
    "Attribution",
    "Method",
    "Piece",
    "attribute_one",
    "gradient",
    "gradient_x_input",
    "integrated_gradients",
    "kernel_shap",
    "leave_one_out",
    "lime",
    "lrp",
    "occlusion",
    "partition_shap",
    "random",
    "shapley_sampling",
    "smooth_grad",
]

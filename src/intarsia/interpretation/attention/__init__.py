"""Attention: what attends to what, and what may be read off it."""

from intarsia.interpretation.attention.view import AttentionView, HeadScores, attention
from intarsia.interpretation.attention.weights import (
    attention_attribution,
    attention_flow,
    attention_rollout,
    attention_x_gradient,
    grad_sam,
    value_weighted_attention,
)

__all__ = [
    "AttentionView",
    "HeadScores",
    "attention",
    "attention_attribution",
    "attention_flow",
    "attention_rollout",
    "attention_x_gradient",
    "grad_sam",
    "value_weighted_attention",
]

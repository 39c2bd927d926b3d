"""Mixture of experts: placements, and running them."""

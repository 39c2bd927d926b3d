"""Advice before anything is compressed: what each family would do to this model on this machine."""

"""Voices: what a detector hears a text by. Each gives numbers that are higher for text that a machine wrote."""

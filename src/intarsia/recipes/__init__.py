"""Recipes: steps over a model; a Run is resumable and leaves a Bundle."""

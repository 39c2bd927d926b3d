"""Recipes: steps over a model; a Run is resumable and leaves a Bundle.

    from intarsia.recipes import Recipe, run
    bundle = run(Recipe.read("python-docs"))
    print(bundle.headline())

- `Recipe`: a YAML file, checked wholly before any work starts (`recipe.py`, `marks.py`, `binding.py`).
- `run`: executes it in a run folder, each finished step a folder named by the hash of its inputs (`running.py`,
  `folder.py`).
- `Bundle`: what a finished run leaves (`bundle.py`)."""

from intarsia.recipes.bundle import Bundle, fingerprint
from intarsia.recipes.recipe import Recipe, Step, shipped
from intarsia.recipes.running import run, tidy
from intarsia.recipes.status import Status, status

__all__ = ["Bundle", "Recipe", "Status", "Step", "fingerprint", "run", "shipped", "status", "tidy"]

"""Language models that write: what references, perturbations and continuations come from."""

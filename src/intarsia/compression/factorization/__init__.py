"""Factorization: a matrix of a linear layer as the product of two small ones, W ~ A C.

- `technique.py`: `compression.factorize`.
- `factoring.py`: the two factors, by three norms. `ranks.py`: how many columns each layer may keep.
- `reading.py`: the text, or the pictures, that layers are seen to read.
- `crossing.py`: what a layer was given and is given now, for refits. `factorizing.py`: the steps.
- `modules.py`: the layer that holds its factors, and putting it in place."""

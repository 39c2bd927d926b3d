"""Compression of convolutional networks: what each family costs in accuracy at so many times less memory, and what that
gives in time and energy."""

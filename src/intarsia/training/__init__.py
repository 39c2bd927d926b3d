"""Training: the loop that every technique which learns by gradients shares, and low-rank adapters."""

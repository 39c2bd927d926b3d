"""What to compress by how much: how much the output hears of a change, and the choice that a budget allows."""

"""Where memories are kept: the contract in `base`, and what keeps it."""

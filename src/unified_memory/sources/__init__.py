"""The memories of other programs, read where they lie: one module a kind, found by its name in `kinds`."""

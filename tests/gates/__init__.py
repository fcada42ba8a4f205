"""Each gate of scripts/check, shown to bite on a planted violation."""

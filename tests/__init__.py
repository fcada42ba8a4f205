"""Tests; the tree mirrors src/unified_memory."""

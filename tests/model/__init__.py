"""Tests of the model: pure functions, one by one and by their properties."""

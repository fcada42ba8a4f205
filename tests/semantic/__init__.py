"""Tests of the extra `semantic`."""

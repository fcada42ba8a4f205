"""Tests of the programs that measure; none asserts a time."""

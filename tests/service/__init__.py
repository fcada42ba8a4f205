"""Tests of the service: its rules one by one, and the whole stack against a model."""

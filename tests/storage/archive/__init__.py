"""Tests of the cold tier's files: what is written, what damage leaves, and where files lie."""

import pytest

pytest.register_assert_rewrite("tests.storage.archive.samples")

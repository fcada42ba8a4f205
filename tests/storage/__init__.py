"""Tests of the storage backends: the contract, the machine, and what each backend adds."""

import pytest

# What is no test module by its name shows its assertions in full too.
pytest.register_assert_rewrite("tests.storage.contract", "tests.storage.drafts", "tests.storage.machine")
pytest.register_assert_rewrite("tests.storage.parts")

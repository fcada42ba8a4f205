"""The parts of the storage contract, one a topic; `tests/storage/contract.py` puts them together."""

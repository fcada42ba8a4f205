"""One scenario is asked over every interface and must give the same answer and the same error.

To join: a module with an `Interface` over the service, and its line in `test_parity.INTERFACES`.
"""

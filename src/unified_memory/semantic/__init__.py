"""Meaning beside words: texts become vectors, near vectors are found. Needs the extra `semantic`.

`errors` and `extra` load anywhere; the other modules import numpy, and the local model onnxruntime.
"""

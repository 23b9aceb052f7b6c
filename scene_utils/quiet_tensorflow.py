"""Import TensorFlow without the banner that its C++ side prints before any log level applies.

Import this module before keras or tensorflow. Python errors and warnings are not touched. What the
C++ side logs is not shown, not even as an error: it calls a slower kernel one, and what is one is
raised in Python too. Under another backend of Keras, as `data/pretrained/train_on_gpu.py` chooses,
nothing is imported.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    _stderr = os.dup(2)
    with open(os.devnull, "w") as _null:
        os.dup2(_null.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(_stderr, 2)
        os.close(_stderr)

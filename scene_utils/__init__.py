"""Scene Localization: find in a picture what a phrase names.

>>> from scene_utils import load_model
>>> load_model().ground("photo.jpg", "the man in the red hat").boxes  # doctest: +SKIP
"""

import sys

__all__ = ["load_model"]
# OpenVINO would tell its makers of each use; where it does not find this package it does not.
sys.modules.setdefault("openvino_telemetry", None)


def __getattr__(name: str):
    # Not imported at once: readers and evaluation need no TensorFlow.
    if name == "load_model":
        from scene_utils.models import load_model

        return load_model
    raise AttributeError(f"module 'scene_utils' has no attribute {name!r}")

"""Scene Localization: find in a picture what a phrase names.

>>> from scene_utils import load_localizer
>>> load_localizer().ground("photo.jpg", "the man in the red hat").boxes  # doctest: +SKIP
"""

__all__ = ["load_localizer"]


def __getattr__(name: str):
    # Not imported at once: readers and evaluation need no TensorFlow.
    if name == "load_localizer":
        from scene_utils.grid.localizer import load_localizer

        return load_localizer
    raise AttributeError(f"module 'scene_utils' has no attribute {name!r}")

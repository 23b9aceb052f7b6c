"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

from scene_utils import entities, paths


@pytest.fixture(scope="session")
def real_data():
    """The folder of Flickr30k Entities, which no repository may carry."""
    root = Path(os.environ.get("FLICKR30K") or paths.ROOT.parent / "shared/data/flickr30k")
    if not root.exists():
        pytest.skip(
            f"no Flickr30k Entities at {root}: set FLICKR30K to the folder that holds "
            "annotations.zip, train.txt, val.txt, test.txt and flickr30k-images"
        )
    return root


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("real_cache")


@pytest.fixture(scope="session")
def real_entities(real_data, real_cache):
    """The real set, read from the official files; its cache lies in `real_cache`."""
    return entities.load_entities(real_data, real_cache, progress=False)

"""Fixtures that several test files share."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from scene_utils import load_model, words
from scene_utils.dataset import entities, sample
from scene_utils.features import pixels
from scene_utils.grid import batches


def pytest_collection_modifyitems(items):
    """What takes minutes first: where a worker took it last, the other would wait for it."""
    items.sort(key=lambda item: item.path.stem != "test_repeat")


@pytest.fixture(scope="session")
def shipped():
    """The grid model that ships, loaded."""
    return load_model()


@pytest.fixture(scope="session")
def twenty(tmp_path_factory):
    """Twenty pictures of the sample, 128 px, as train, val and test at once: a grid model's data.

    It has their `root`, `phrases`, `store`, `vocabulary`, `embeddings` and `mentions`.
    """
    root = tmp_path_factory.mktemp("twenty") / "scenes"
    sample.generate(root, train=20, val=0, test=0)
    (root / "val.txt").write_text((root / "train.txt").read_text())
    ids = entities.read_ids(root, "train")
    phrases = entities.read_entities(root, dict.fromkeys(ids, "train")).phrases
    folder, cache = entities.image_folder(root), root.parent / "cache"
    store = pixels.squeeze_pictures(folder, ids, 128, cache)
    vocabulary, embeddings, _ = words.build_vocabulary(phrases.phrase, words.load_vectors())
    mentions = batches.make_mentions(phrases, "train", store, vocabulary, 12)
    return SimpleNamespace(
        root=root,
        phrases=phrases,
        store=store,
        vocabulary=vocabulary,
        embeddings=embeddings,
        mentions=mentions,
    )


@pytest.fixture(scope="session")
def browser():
    from tests.browser import browser as headless  # needs more than most tests do

    with headless.launched() as found:
        yield found


@pytest.fixture(scope="module")
def complaints():
    """Errors in the console, failed requests and uncaught exceptions of all pages so far."""
    return []


@pytest.fixture(scope="module")
def opened(browser, address, complaints):
    """The query widget of the module's `address` in a tab; `page` has it at its start."""
    from tests.browser import browser as headless

    page = browser.new_context(viewport=headless.WIDE).new_page()
    headless.listen(page, complaints)
    headless.load(page, address)
    return page


@pytest.fixture
def page(opened, complaints):
    """The photo `astronaut` in mode Phrase; afterwards nothing may have gone wrong."""
    from tests.browser import browser as headless

    opened.set_viewport_size(headless.WIDE)
    headless.mode(opened, "Phrase")
    opened.get_by_label("Search").fill("")
    headless.choose(opened, "astronaut")
    headless.wait_label(opened, "an orange suit")
    yield opened
    assert complaints == []


@pytest.fixture(params=["folders", "archive"])
def kind(request):
    """How the annotations of a data set lie in its root."""
    return request.param


@pytest.fixture(scope="session")
def real_data():
    """The folder of Flickr30k Entities, which no repository may carry."""
    root = os.environ.get("FLICKR30K")
    if not root or not Path(root).exists():
        pytest.skip(
            "set FLICKR30K to the folder of Flickr30k Entities that holds annotations.zip, "
            "train.txt, val.txt, test.txt and flickr30k-images"
        )
    return Path(root)


@pytest.fixture(scope="session")
def real_entities(real_data):
    """The real set, read from the official files."""
    return entities.read_entities(real_data)

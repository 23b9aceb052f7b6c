"""The phrases of a sentence help each other: pairs, how boxes lie, and what follows for a box."""

import keras
import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops, words
from scene_utils.grid import sentence_network, sentences, train_sentences
from tests.makers import phrase_table, random_boxes

WORDS = ["a", "man", "in", "blue", "shirt", "with", "dog", "hat"]
VOCABULARY = words.Vocabulary.of([words.PAD, words.UNKNOWN, *WORDS])


def names(tokens):
    return [VOCABULARY.words[token] for token in tokens if token]


def test_pairs_read_both_phrases_and_the_words_between_neighbours():
    sentence = "A man in a blue shirt stands with a dog ."
    table = sentences.phrases_of(sentence, ["A man", "a blue shirt", "a dog"])
    assert table.first_word_index.tolist() == [0, 3, 8]
    pairs = sentences.pairs_of(table, VOCABULARY)
    assert list(zip(pairs.one, pairs.other, strict=True)) == [
        (one, other) for one in range(3) for other in range(3) if one != other
    ]
    parts = np.split(pairs.tokens, [sentences.PHRASE, sentences.PHRASE + sentences.JOINT], axis=1)
    read = [[names(part[row]) for part in parts] for row in range(6)]
    assert read[0] == [["a", "man"], ["in"], ["a", "blue", "shirt"]]
    assert read[2] == [["a", "blue", "shirt"], ["in"], ["a", "man"]]
    assert read[1] == [["a", "man"], [], ["a", "dog"]]  # no neighbours
    assert read[3][1] == ["<unk>", "with"]
    assert pairs.order.tolist()[:3] == [[1, 1, 0.25], [1, 0, 0.5], [0, 1, 0.25]]
    # Those of another sentence are no company.
    alone = sentences.phrases_of("a dog", ["a dog"]).assign(sentence_id=1)
    more = sentences.pairs_of(pd.concat([table, alone], ignore_index=True), VOCABULARY)
    assert more.one.tolist() == pairs.one.tolist()


def test_a_phrase_given_twice_is_its_second_occurrence_and_a_strange_one_refused():
    table = sentences.phrases_of("a man and a man", ["a man", "A MAN"])
    assert table.first_word_index.tolist() == [0, 3]
    with pytest.raises(ValueError, match="expected to find 'a cat' in it, got 'a man'"):
        sentences.phrases_of("a man", ["a cat"])


def test_features_of_two_boxes_are_those_of_their_definition():
    boxes = random_boxes(27, 0) + np.float32([0, 0, 0.1, 0.1])  # none is next to nothing
    first, second = boxes[:12].reshape(3, 4, 4), boxes[12:].reshape(3, 5, 4)
    found = np.asarray(sentence_network.HowTheyLie()([first, second]))
    iou = box_ops.iou(first[:, :, None], second[:, None])
    np.testing.assert_allclose(found[..., 12], iou, atol=1e-5)
    # Shares of the one and of the other that lie in both.
    both = iou * (box_ops.area(first)[:, :, None] + box_ops.area(second)[:, None]) / (1 + iou)
    np.testing.assert_allclose(found[..., 10], both / box_ops.area(first)[:, :, None], rtol=1e-3)
    np.testing.assert_allclose(found[..., 11], both / box_ops.area(second)[:, None], rtol=1e-3)
    middles = [(box[..., :2] + box[..., 2:]) / 2 for box in (first, second)]
    way = middles[0][:, :, None] - middles[1][:, None]
    np.testing.assert_allclose(found[..., :2], 2 * way, atol=1e-5)


def holder():
    """Networks that say: the other's box lies in the one's."""
    tokens = keras.Input((sentences.PHRASE * 2 + sentences.JOINT,), dtype="int32")
    order = keras.Input((3,))
    said = keras.ops.concatenate([order[:, :1] * 0 + 6, order[:, :1] * 0], axis=1)
    one, other = keras.Input((None, 4)), keras.Input((None, 4))
    lies = sentence_network.HowTheyLie()([one, other])[..., 11:13]
    reads = keras.Model([tokens, order], said)
    return sentence_network.PairNetworks(reads, keras.Model([one, other], lies), None)


def weigh(likely, shares, pairs, weight=1.0):
    factors = sentences.factors(holder().said, likely, pairs)
    return sentences.agree(factors, shares, pairs, weight)


def test_the_man_is_he_who_wears_the_shirt():
    """Two men of nearly the same probability, a shirt that lies in the second."""
    man = [[0.1, 0.1, 0.3, 0.9], [0.6, 0.1, 0.8, 0.9]]
    shirt = [[0.62, 0.2, 0.78, 0.5], [0.0, 0.0, 0.05, 0.05]]
    likely, shares = np.float32([man, shirt]), np.float32([[0.55, 0.45], [0.9, 0.1]])
    table = sentences.phrases_of("a man in a blue shirt", ["a man", "a blue shirt"])
    pairs = sentences.pairs_of(table, VOCABULARY)
    new = weigh(likely, shares, pairs)
    np.testing.assert_allclose(new.sum(axis=1), 1, atol=1e-5)
    assert new[0, 1] > 0.9
    # It is the same whatever the order in which phrases are given.
    table = sentences.phrases_of("a man in a blue shirt", ["a blue shirt", "a man"])
    turned = sentences.pairs_of(table, VOCABULARY)
    again = weigh(likely[::-1].copy(), shares[::-1].copy(), turned)
    np.testing.assert_allclose(again[::-1], new, atol=1e-5)
    # Without weight or company a phrase stays as it was.
    np.testing.assert_allclose(weigh(likely, shares, pairs, 0.0), shares, atol=1e-5)
    alone = sentences.pairs_of(sentences.phrases_of("a man", ["a man"]), VOCABULARY)
    np.testing.assert_array_equal(weigh(likely[:1], shares[:1], alone), shares[:1])


def annotated(count, seed):
    """Pictures of two men of whom one has the shirt in him, "a man in a blue shirt"."""
    rng = np.random.default_rng(seed)
    rows = []
    for picture in range(count):
        x, y = 0.05 + 0.2 * rng.random(2)
        men = np.array([[x, y, x + 0.25, y + 0.6], [x + 0.5, y, x + 0.75, y + 0.6]])
        wearer = rng.integers(2)
        shirt = men[wearer] + [0.03, 0.1, -0.03, -0.3]
        for phrase_id, first, phrase, box, kind in (
            (1, 0, "a man", men[wearer], "people"),
            (2, 3, "a blue shirt", shirt, "clothing"),
            (3, 0, "a man", men[1 - wearer], "people"),
        ):
            rows.append((str(picture), phrase_id // 3, phrase_id, first, phrase, kind, 100 * box))
    table, _ = phrase_table(rows)
    said = np.where(table.sentence_id == 0, "a man in a blue shirt", "a man")
    return table.assign(sentence=said)


def test_it_learns_from_annotations_that_a_shirt_tells_who_is_meant():
    keras.utils.set_random_seed(0)
    parts = annotated(300, 1).assign(split="train"), annotated(60, 2).assign(split="val")
    table = pd.concat(parts)
    made = sentence_network.build_networks(np.eye(len(VOCABULARY.words), dtype=np.float32), 32, 16)
    found = train_sentences.learn(made, table, VOCABULARY, steps=120)
    assert found["train_pairs"] == 300  # the shirt has no like, the second man no company
    assert found["alone"] < 0.7
    assert found["with_another"] > 0.95

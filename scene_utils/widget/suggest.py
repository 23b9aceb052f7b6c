"""What is typed into the query widget: checked, split into phrases, answered with notices."""

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

from scene_utils.grounding import ABSENT, Grounding
from scene_utils.words import PAD, UNKNOWN, Vocabulary, tokenize

LONGEST = 500  # characters
SHORT = 30  # characters of a word in a message; real words are shorter
MOST_PHRASES = 12

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_BETWEEN = re.compile(r"[,;\n]")


def shorten(text: str, longest: int) -> str:
    """The text, or its beginning where it is longer, to show where there is little room.

    >>> shorten("the man in the red hat", 12)
    'the man i...'
    """
    return text if len(text) <= longest else text[: longest - 3] + "..."


def check_phrase(phrase: str, vocabulary: Vocabulary) -> str:
    """The phrase with single spaces between its words.

    Raises ValueError, with a message for the user, for what the model can read nothing in.
    """
    phrase = " ".join(phrase.split())
    if not phrase:
        raise ValueError("Type a phrase, such as 'the man in the red hat', and press Enter.")
    _check_length(phrase)
    words = tokenize(phrase)
    if not words:
        raise ValueError(f"'{phrase[:40]}' has no words. Name a thing, such as 'a red cup'.")
    if all(word not in vocabulary.index for word in words):
        near = [near[0] for word in words[:4] if (near := did_you_mean(word, vocabulary.words))]
        strange = ", ".join(shorten(word, SHORT) for word in words[:6])
        asks = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"The model reads English and knows none of these words: {strange}.{asks}")
    return phrase


def _check_length(text: str) -> None:
    if len(text) > LONGEST:
        raise ValueError(f"At most {LONGEST} characters, please: this has {len(text):,}.")


@lru_cache(maxsize=512)
def did_you_mean(word: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """At most three words of a vocabulary, nearest in spelling to one that it lacks."""
    if not 4 <= len(word) <= 30:
        return ()
    near = difflib.get_close_matches(word, words, 5, cutoff=0.75)
    return tuple(other for other in near if other not in (PAD, UNKNOWN))[:3]


def replace_word(phrase: str, word: str, other: str) -> str:
    """`phrase` with `word`, in any case, exchanged for `other`."""
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _: other, phrase, flags=re.IGNORECASE)


def split_sentence(text: str) -> list[str]:
    """The phrases of a sentence: what stands in [brackets], else what commas separate.

    >>> split_sentence("[a man] on [the beach]")
    ['a man', 'the beach']

    Raises ValueError, with a message for the user, for a text too long or with too many phrases.
    """
    _check_length(text)
    parts = _BRACKETS.findall(text) or _BETWEEN.split(text)
    phrases = list(dict.fromkeys(phrase for part in parts if (phrase := " ".join(part.split()))))
    if len(phrases) > MOST_PHRASES:
        raise ValueError(f"At most {MOST_PHRASES} phrases at once, please: got {len(phrases)}.")
    return phrases


def whole_sentence(text: str) -> str:
    """The sentence that `split_sentence` splits, its phrases as words of their own.

    >>> whole_sentence("a red cup, a spoon")
    'a red cup , a spoon'
    """
    if _BRACKETS.search(text):
        text = re.sub(r"[\[\]]", " ", text)
    else:
        text = _BETWEEN.sub(lambda part: f" {part[0]} ", text)
    return " ".join(text.split())


def notices(
    answers: Sequence[Grounding], vocabulary: Vocabulary
) -> tuple[list[str], list[tuple[str, str]]]:
    """What to tell the user of a grid model's answers: phrases that are probably not in the
    picture, words that it does not know, has seldom seen or does not read; and pairs (unknown
    word, word meant)."""
    told, meant = [], []
    for answer in answers:
        if answer.present is not None and answer.present < ABSENT:
            chance = f"chance that it is: {100 * answer.present:.0f} %"
            told.append(
                f"'{shorten(answer.phrase, 80)}' is probably not in the picture ({chance})."
            )
        if len(answer.unknown) > max(1, len(answer.words) // 2):
            words = ", ".join(shorten(word, SHORT) for word in answer.unknown)
            told.append(f"The model reads English; it does not know {words}.")
            continue
        for word in answer.unknown:
            near = did_you_mean(word, vocabulary.words)
            meant += [(word, other) for other in near]
            asks = f" Did you mean {' or '.join(near)}?" if near else ""
            told.append(f"The model does not know '{shorten(word, SHORT)}'.{asks}")
        for word in answer.rare:
            told.append(f"'{shorten(word, SHORT)}' was seldom or never seen in training.")
        if answer.unread:
            words = shorten(" ".join(answer.unread), 80)
            told.append(f"The model does not read the last words, '{words}'.")
    return list(dict.fromkeys(told)), list(dict.fromkeys(meant))

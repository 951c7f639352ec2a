"""The words by which published data sets call their splits."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.splits import TEST, TRAIN, VALIDATION

SPLIT_WORDS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("validation", "val", "valid", "validate", "dev", "development"),
    TEST: ("test", "testing"),
}


def canonical_name(word: str) -> str:
    """`validation` for `Val`, and so on; other words stay, in lower case and without blanks."""
    name = word.strip().lower()
    return next((split for split, words in SPLIT_WORDS.items() if name in words), name)


def split_number(word: str, names: Sequence[str], where: str) -> int:
    """Index in `names` of the split that a word of `SPLIT_WORDS` means; -1 for an empty word.

    Args:
      names: the splits that a build makes; folds have their own names alone.
      where: beginning of the message.

    Raises:
      UserError: the word means none of them.
    """
    name = canonical_name(word)
    if name and name not in names:
        words = "words such as val, dev and training are understood"
        remedy = words if TRAIN in names else "--splits=own ignores given splits"
        raise UserError(f"{where} {word!r} is not one of {', '.join(names)}; {remedy}")
    return names.index(name) if name else -1

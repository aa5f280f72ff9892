"""One rule for labels, whatever source they come from.

    a whole number      0, 7, True; 1.0 and "1.0" are 1
    a word              "cat"; b"cat" is cat, and spaces around it do not count
    missing             None, NaN, NA, NaT, blanks, and the words that pandas reads as missing
                        (null, NA, nan, None...); -1 where the classes have names
    an error            0.5, lists, one-hot rows, structures

An image whose label is missing has number -1. Pretraining uses it, and what needs labels leaves it
out (`subset.labelled_images`); both are counted and printed.

Shape letters: n images.
"""

import datetime
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.core.notices import notice
from selfsup.data.sources import Columns

Encoded = tuple[Tensor | None, list[str]]
"""Numbers int64 [n] and the name of each; None and [] where no image has a label."""

# Source: pandas, read_csv's na_values; and NaT, as pandas prints a missing date
MISSING = {
    *("", "nan", "NaN", "-nan", "-NaN", "NaT", "NA", "<NA>", "#NA", "N/A", "n/a", "#N/A"),
    *("#N/A N/A", "NULL", "null", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}
WHOLE = re.compile(r"([+-]?\d+)\.0+")
DIGITS = re.compile(r"-?\d+")
SPELLINGS = 3  # of missing labels, in a notice
ONE_EACH = "give each image one label (its argmax), or pretrain without labels: --labels ''"


def class_name(value: Any, where: Any = "the data set") -> str | None:
    """Name the class of a label; None where it is missing.

    >>> [class_name(label) for label in (1, 1.0, "1", b"cat", " cat ", float("nan"), "", None)]
    ['1', '1', '1', 'cat', 'cat', None, None, None]

    Raises:
        UserError: it is neither a whole number nor a word.
    """
    value = _scalar(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        word = value.strip()
        whole = WHOLE.fullmatch(word)
        return None if word in MISSING else str(int(whole[1])) if whole else word
    if isinstance(value, float | Decimal):
        if value != value:
            return None
        if value in (float("inf"), float("-inf")) or value != int(value):
            raise UserError(_refusal(where, f"{np.asarray(float(value)).dtype} like {value}"))
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, bool | datetime.date):
        return str(value)
    kind = "a list" if isinstance(value, Sequence | np.ndarray) else f"a {type(value).__name__}"
    raise UserError(_refusal(where, f"{kind} like {_short(value)}") + f"; {ONE_EACH}")


def _scalar(value: Any) -> Any:
    """Take a value out of numpy's, torch's and pyarrow's wrappers, and out of a list of one."""
    for _ in range(3):
        if value is np.ma.masked:
            break
        array = isinstance(value, np.ndarray | Tensor) and math.prod(value.shape) == 1
        if isinstance(value, np.generic) or array:
            value = value.item()
        elif isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        elif hasattr(value, "as_py"):
            value = value.as_py()
        else:
            break
    return value


def _short(value: Any) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray | Tensor) else value)
    return text if len(text) < 40 else text[:37] + "..."


def _refusal(where: Any, what: str) -> str:
    return f"{where}: labels have to be a whole number or a word for each image, not {what}"


def text_of(value: Any) -> str:
    """Write a cell of a column that is no label as text; a missing one is empty."""
    value = _scalar(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None or value != value else str(value)


def encode_labels(words: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Number words as they are in their sorted order: the numbers, and the words."""
    classes, index = np.unique(np.asarray(words, dtype=str), return_inverse=True)
    return torch.from_numpy(index.astype(np.int64)), classes.tolist()


def encode_words(where: Any, values: Sequence[Any]) -> Encoded:
    """Number labels in the sorted order of their names as words.

    Raises:
        UserError: a label is neither a whole number nor a word.
    """
    cells = values if isinstance(values, list) else list(values)
    known: dict[str, str | None] = {}  # words come again and again
    for value in cells:
        if type(value) is str and value not in known:
            known[value] = class_name(value, where)
    names = [known[value] if type(value) is str else class_name(value, where) for value in cells]
    _count_missing(where, cells, names)
    words = sorted({name for name in names if name is not None})
    if not words:
        return None, []
    numbers = {name: number for number, name in enumerate(words)}
    each = (-1 if name is None else numbers[name] for name in names)
    return torch.from_numpy(np.fromiter(each, np.int64, len(names))), words


def encode_class_numbers(where: Any, labels: Any, names: Any = None) -> Encoded:
    """Number labels 0, 1, 2..., whole numbers by their value and words in sorted order.

    Args:
        where: what has the labels, for messages.
        labels: a label for each image: a list, an array or a tensor [n] or [n, 1].
        names: of the classes 0, 1, 2...: then labels are numbers of classes, or their names, and -1
            is a missing one. A name that comes twice gets its number added.

    Raises:
        UserError: a label is neither a whole number nor a word, or has no name.
    """
    values, index = _distinct(where, labels)
    words = [class_name(value, where) for value in values]
    keys: list[Any] = list(words)
    titles: dict[Any, str] = {word: word for word in words if word is not None}
    unique = _unique_names(names)
    if unique:
        keys = [_class_number(where, *pair, unique) for pair in zip(values, words, strict=True)]
        titles = dict(enumerate(unique))
    elif all(word is None or _is_number(x) for x, word in zip(values, words, strict=True)):
        keys = [None if word is None else int(word) for word in words]
        titles = {int(word): word for word in titles}
    if None in keys:
        _count_missing(where, [values[i] for i in index], [keys[i] for i in index])
    present = sorted({key for key in keys if key is not None})
    if not present:
        return None, []
    numbers = {key: number for number, key in enumerate(present)}
    table = torch.tensor([-1 if key is None else numbers[key] for key in keys])
    return table[torch.from_numpy(index)], [titles[key] for key in present]


def _is_number(value: Any) -> bool:
    value = _scalar(value)
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _distinct(where: Any, labels: Any) -> tuple[list[Any], np.ndarray]:
    """Different labels as Python values, and for each image the index of its label."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu()
        labels = labels.double().numpy() if labels.is_floating_point() else labels.numpy()
    if isinstance(labels, np.ndarray) and not isinstance(labels, np.ma.MaskedArray):
        shape = list(labels.shape)
        labels = labels[:, 0] if labels.ndim == 2 and shape[1] == 1 else labels
        if labels.ndim != 1 or labels.dtype.kind in "cV":
            raise UserError(_refusal(where, f"{labels.dtype} {shape}") + f"; {ONE_EACH}")
        if labels.dtype.kind in "biufSU":
            different, index = np.unique(labels, return_inverse=True)
            return different.tolist(), index.astype(np.int64)
    values = list(labels)
    return values, np.arange(len(values))


def _unique_names(names: Any) -> list[str]:
    """Names as words; one that comes twice gets its number: crane (134) and crane (517).

    Some data sets list the synonyms of each class. What is no list of names has none.
    """
    if not isinstance(names, Sequence | np.ndarray) or isinstance(names, str | bytes):
        return []
    if isinstance(names, np.ndarray) and names.ndim != 1:
        return []
    synonyms = [name if isinstance(name, list | tuple) else (name,) for name in names]
    words = [", ".join(text_of(word).strip() for word in each) for each in synonyms]
    twice = {word for word, count in Counter(words).items() if count > 1}
    return [f"{word} ({i})" if word in twice else word for i, word in enumerate(words)]


def _class_number(where: Any, value: Any, word: str | None, names: list[str]) -> int | None:
    """The number of a class from a label that is its number or its name; None for a missing one.

    Raises:
        UserError: no class has this number or name.
    """
    if word is None:
        return None
    value = _scalar(value)
    if isinstance(value, str | bytes) and word in names:
        return names.index(word)
    number = (
        int(value) if isinstance(value, bool) else int(word) if DIGITS.fullmatch(word) else None
    )
    if number == -1:
        return None
    if number is None or not 0 <= number < len(names):
        raise UserError(f"{where} names {len(names)} classes and has label {word}")
    return number


def _count_missing(where: Any, values: Iterable[Any], keys: Sequence[Any]) -> None:
    """Print how many labels are missing, if some are and some are not."""
    spellings = [_scalar(x) for x, key in zip(values, keys, strict=True) if key is None]
    if not spellings:
        return
    words = sorted({"null" if x is None else str(x).strip() or "blank" for x in spellings})
    listed = ", ".join(words[:SPELLINGS]) + ("..." if len(words) > SPELLINGS else "")
    every = len(spellings) == len(keys)
    count = "none of" if every else f"{len(spellings)} of"
    lack = "has a label" if every else "have no label"
    notice(f"{where}: {count} {len(keys)} images {lack} ({listed})")


def column_labels(where: Any, columns: Columns, name: str) -> Encoded:
    """Use a column as labels.

    Raises:
        UserError: there is no such column.
    """
    if name not in columns:
        raise UserError(f"{where} has no column {name!r}; it has {', '.join(columns) or 'none'}")
    return encode_words(where, list(columns[name]))

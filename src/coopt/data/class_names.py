"""Names for classes whose folders or labels are numbers or codes: read from a file, checked, and put in their place."""

from __future__ import annotations

import json
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from coopt.data.file_names import display_name, shown_names
from coopt.data.splits import ImageDataset, Split
from coopt.data.text_files import decode_text, in_unicode, table_rows, visible
from coopt.errors import ClassNameWarning, DataError
from coopt.wording import on_command_line, setting

ClassNames = Mapping[Any, str] | Sequence[str] | str | os.PathLike[str]
"""Names for classes: by folder (or label), or in the order of the sorted folders; or a file that holds either."""

_WORDNET = re.compile(r"n\d{8}")
_CODES = (
    re.compile(r"[\W\d_]*\d[\W\d_]*"),  # 10, 007, 3.5, #4: no letter
    _WORDNET,
    re.compile(r"(?i)(class|cls|label|lbl|cat|category|group|type|id|folder|dir|set|cluster|kind|item|sp)[ _.-]?\d+"),
    re.compile(r"(?i)(?=.*\d)[0-9a-f]{8,}"),  # a hash
    re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),  # a UUID
)
_SEPARATORS = (r"\t+", r"\s*[:=;,]\s*", r"\s+")  # of a class and its name on one line
_LETTER_AND_NUMBER = re.compile(r"(?i)([a-z])[ _.-]?\d+")  # c0, c1; but one "B52" is an aircraft
_NUMBERED = re.compile(r"(?:n\d{8}|\d+)[._-]+(\S.*)")  # 001.Black_footed_Albatross, n02085620-Chihuahua


def renamed(dataset: ImageDataset, names: ClassNames) -> ImageDataset:
    """The data set with other class names; which images are in which part, and the order of the classes, stay.

    Args:
        dataset: its class names are the keys.
        names: see `ClassNames`.

    Raises:
        DataError: a class has no name, a name is blank or stands for two classes, or the file cannot be read.
    """
    keys = _ordered(dataset.class_names)
    source = "class_names"
    if isinstance(names, str | os.PathLike):
        source = f"'{display_name(names)}'"
        names = _read(Path(names), keys)
    by_key = _from_list(keys, names, source) if not isinstance(names, Mapping) else _from_mapping(keys, names, source)
    _check(by_key, source)
    note = f"Class names are those of {source}: " + ", ".join(f"'{key}' is {by_key[key]!r}" for key in keys[:3])

    def part(split: Split | None) -> Split | None:
        return None if split is None else Split(split.paths, tuple(by_key[label] for label in split.labels))

    return replace(
        dataset,
        class_names=tuple(by_key[key] for key in dataset.class_names),
        train=part(dataset.train) or Split((), ()),
        val=part(dataset.val),
        test=part(dataset.test),
        notes=(*dataset.notes, f"{note}{', ...' if len(keys) > 3 else ''}."),
        few_shot_caches=None,  # they hold the names as they were
    )


def warn_of_codes(names: Sequence[str], remedy: str | None = None) -> None:
    """Warns of class names that say nothing of what the images show: numbers, WordNet ids, hashes, `class_01`.

    Args:
        names: of the classes.
        remedy: what to do; None: what `load_dataset` takes.
    """
    codes = _codes_among(names)
    if not codes:
        return
    shown = ", ".join(f"'{display_name(name)}'" for name in codes[:3]) + (", ..." if len(codes) > 3 else "")
    given = setting("class_names", "FILE" if on_command_line() else {codes[0]: "..."})
    warnings.warn(
        f"{len(codes)} of {len(names)} class names are numbers or codes, or begin with them ({shown}), and prompts are "
        f'made of class names: "a photo of a {display_name(codes[0])}.". If the images show something that has a name, '
        f"{remedy or f'give the names with {given}'}.",
        ClassNameWarning,
        stacklevel=3,
    )


def _codes_among(names: Sequence[str]) -> list[str]:
    numbered = [match[1] for name in names if (match := _NUMBERED.fullmatch(name))]
    if len(names) > 1 and len(set(numbered)) == len(names):  # "1_dollar", "5_dollar" are amounts
        return list(names)
    letters = Counter(match[1] for name in names if (match := _LETTER_AND_NUMBER.fullmatch(name)))

    def is_code(name: str) -> bool:
        match = _LETTER_AND_NUMBER.fullmatch(name)
        return any(pattern.fullmatch(name) for pattern in _CODES) or (match is not None and letters[match[1]] > 1)

    return [name for name in names if is_code(name)]


def _ordered(names: Sequence[str]) -> list[str]:
    """The classes as a list of names counts them: numbers by their value, so that '2' comes before '10'."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return list(names)


def _from_list(keys: list[str], names: Sequence[Any], source: str) -> dict[str, str]:
    if len(names) != len(keys):
        raise DataError(
            f"{source} has {len(names)} names for {len(keys)} classes ({shown_names(keys)}). Expected one for each, in this "
            "order, or a mapping from each class to its name."
        )
    return dict(zip(keys, map(_text, names), strict=True))


def _from_mapping(keys: list[str], names: Mapping[Any, Any], source: str) -> dict[str, str]:
    known = {_text(key): _text(name) for key, name in names.items()}
    missing = [key for key in keys if key not in known]
    if missing:
        close = get_close_matches(missing[0], set(known) - set(keys), n=1)
        hint = f" Did you mean that class by {close[0]!r}?" if close else ""
        raise DataError(
            f"{source} has no name for {len(missing)} of {len(keys)} classes: {shown_names(missing)}.{hint} "
            "Add a name for each."
        )
    by_key = {key: known[key] for key in keys}
    return _first_synonyms(by_key) if all(_WORDNET.fullmatch(key) for key in keys) else by_key


def _first_synonyms(names: dict[str, str]) -> dict[str, str]:
    """The first of each id's synonyms ("tench" of "tench, Tinca tinca"), or all where it is not that class's alone.

    ImageNet has two classes "crane"; as in the papers' list of its names, the second gets an underscore, which prompts
    do not show.
    """
    firsts = {key: name.split(",")[0].strip() for key, name in names.items()}
    counts = Counter(firsts.values())
    key_of: dict[str, str] = {}
    for key, first in firsts.items():
        name = first if counts[first] == 1 else names[key]
        while name in key_of:
            name += "_"
        key_of[name] = key
    return {key: name for name, key in key_of.items()}


def _check(names: dict[str, str], source: str) -> None:
    blank = [key for key, name in names.items() if not name]
    if blank:
        raise DataError(
            f"{source} gives {len(blank)} classes a blank name: {shown_names(blank)}. Expected a name for each."
        )
    first: dict[str, str] = {}
    for key, name in names.items():
        other = first.setdefault(name, key)
        if other != key:
            raise DataError(
                f"{source} gives the name {name!r} to two classes, {other!r} and {key!r}. Give each its own; if they are "
                "one class, move their images into one folder (or give them one label)."
            )


def _text(value: Any) -> str:
    """A key or a name as text; keys may be integers, and Keras gives ["n01440764", "tench"] as a name."""
    if isinstance(value, list | tuple) and len(value) == 2:
        value = value[1]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"Class names must be text. Got {value!r} ({type(value).__name__}).")
    return visible(unicodedata.normalize("NFC", in_unicode(str(value))))


def _read(file: Path, keys: list[str]) -> Mapping[Any, Any] | Sequence[Any]:
    name = display_name(file)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"The class names '{name}' cannot be read: {error.strerror}.") from error
    text = decode_text(data)
    if file.suffix.lower() == ".json":
        return _from_json(text, name)
    lines = [line for line in (visible(line) for line in text.splitlines()) if line]
    if not lines:
        raise DataError(f"The file of class names '{name}' is empty. Expected lines such as 'n01440764 tench'.")
    if file.suffix.lower() in (".csv", ".tsv"):
        return _from_rows(text, name)
    ways = [_pairs(lines, separator) for separator in _SEPARATORS]
    pairs = max(*ways, _mixed_pairs(lines, keys), key=lambda some: _named(keys, some))
    named = _named(keys, pairs)
    if named == len(keys) or (named and len(lines) != len(keys)):
        _refuse_two_names(pairs, name)
        return dict(pairs)
    if len(lines) == len(keys):
        return lines
    raise DataError(
        f"The file of class names '{name}' has {len(lines)} lines for {len(keys)} classes ({shown_names(keys)}). Expected a "
        "line such as 'n01440764 tench' for each class, or one name per line in this order."
    )


def _pairs(lines: Sequence[str], separator: str) -> list[tuple[str, str]]:
    """Lines such as "n01440764 tench" as (class, name)."""
    split = [re.split(separator, line, maxsplit=1) for line in lines]
    return [(_text(pair[0]), pair[1]) for pair in split if len(pair) == 2]


def _mixed_pairs(lines: Sequence[str], keys: Sequence[str]) -> list[tuple[str, str]]:
    """The same where some take a blank here and a comma there: whatever follows a class that is known."""
    pairs: list[tuple[str, str]] = []
    for line in lines:
        ways = [pair for separator in _SEPARATORS for pair in _pairs([line], separator)]
        pairs += [pair for pair in ways if pair[0] in keys][:1]
    return pairs


def _named(keys: Sequence[str], pairs: Sequence[tuple[str, str]]) -> int:
    """How many of the classes have a name."""
    return len(set(keys) & {key for key, _ in pairs})


def _from_json(text: str, name: str) -> Mapping[Any, Any] | Sequence[Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_two_names(items, name)
        return dict(items)

    try:
        content = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"The file of class names '{name}' is not JSON: {error}.") from error
    if isinstance(content, dict) and all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and _WORDNET.fullmatch(one[0])
        for one in content.values()
    ):  # {"0": ["n01440764", "tench"]}
        return {one[0]: one[1] for one in content.values()}
    if not isinstance(content, dict | list) or not content:
        raise DataError(f"'{name}' holds no class names. Expected an object {{folder: name}} or a list of names.")
    return content


def _from_rows(text: str, name: str) -> Mapping[str, str]:
    rows = table_rows(text)
    wrong = next((row for row in rows if len(row) != 2), None)
    if wrong is not None:
        raise DataError(
            f"'{name}' has a row of {len(wrong)} cells: {shown_names(wrong)}. Expected two columns, the class and its name; "
            'put quotes around a name that holds the delimiter: "tench, Tinca tinca".'
        )
    _refuse_two_names(rows, name)
    return dict(rows)


def _refuse_two_names(pairs: Sequence[Sequence[Any]], source: str) -> None:
    seen: dict[str, Any] = {}
    for key, name in pairs:
        if seen.setdefault(key, name) != name:
            raise DataError(f"'{source}' gives the class {key!r} two names: {seen[key]!r} and {name!r}. Expected one.")

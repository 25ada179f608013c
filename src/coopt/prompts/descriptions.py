"""What people write about classes: sentences and other names, beside or behind the name in a prompt.

Sentences for each class, averaged into its text feature: Pratt et al.: "What does a platypus look like? Generating customized
prompts for zero-shot image classification", ICCV 2023, arXiv:2209.03320. No text is generated here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coopt.backbones.protocol import Backbone
from coopt.errors import ClassNameWarning, ParameterError, PromptTooLongError
from coopt.text.layout import clean_name, template_prompts
from coopt.wording import counted, subject

Descriptions = Mapping[str, Sequence[str]]
"""By class name: texts that end with a period are sentences, all others are other names of the class."""

_AT_SENTENCES, _AT_COMMAS, _AT_BLANKS = r"(?<=[.;:!?])\s+", r"(?<=,)\s+", r"\s+"


def check_descriptions(descriptions: Any) -> bool:
    """Refuses what does not map class names to texts.

    Raises:
        ParameterError: says what is wrong.
    """

    def refuse(what: str) -> None:
        raise ParameterError(
            f"{subject('descriptions', 'the method')} must map class names to lists of texts, such as "
            f"{{'tench': ['A large freshwater fish.']}}. {what}"
        )

    if not isinstance(descriptions, Mapping):
        refuse(f"Got {type(descriptions).__name__} instead.")
    for name, texts in descriptions.items():
        if not isinstance(name, str) or not isinstance(texts, list | tuple | np.ndarray):
            refuse(f"Got {texts!r} for {name!r}.")
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                refuse(f"Got {text!r} among the texts of {name!r}.")
    return True


def of_class(descriptions: Descriptions | None, name: str) -> tuple[str, ...]:
    """The texts of a class; underscores in its name are blanks, as in prompts."""
    if not descriptions:
        return ()
    for key in (name, clean_name(name)):
        if key in descriptions:
            return tuple(" ".join(text.split()) for text in descriptions[key])
    return ()


def described(name: str, descriptions: Descriptions | None) -> str:
    """A class's name as it goes into a prompt with learned vectors: its first text behind it, after a comma."""
    texts = of_class(descriptions, name)
    return f"{name}, {texts[0].rstrip('.')}" if texts else name


def written_texts(
    backbone: Backbone, class_names: Sequence[str], templates: Sequence[str], descriptions: Descriptions
) -> tuple[list[str], list[int]]:
    """All texts that descriptions add to the templates: other names put into these, and sentences as they are.

    A sentence that is longer than the text tower reads is cut into several, with a warning: where sentences end, else at
    commas, else between words.

    Returns:
        The texts, and the index of each one's class.

    """
    texts: list[str] = []
    classes: list[int] = []
    cut: list[str] = []
    for index, name in enumerate(class_names):
        for text in of_class(descriptions, name):
            if not text.endswith("."):
                made = [template.replace("{}", clean_name(text)) for template in templates]
            else:
                made = _fitting(backbone, text, (_AT_SENTENCES, _AT_COMMAS, _AT_BLANKS))
                cut += [name] * (len(made) > 1)
            texts += made
            classes += [index] * len(made)
    if cut:
        warnings.warn(
            f"{counted(len(cut), 'description')} longer than the {backbone.text.context_length} tokens that "
            f"{backbone.name} reads, the first of class {cut[0]!r}, were cut into several texts.",
            ClassNameWarning,
            stacklevel=2,
        )
    return texts, classes


def _fitting(backbone: Backbone, text: str, separators: Sequence[str]) -> list[str]:
    """The text if the tower reads it whole, otherwise its parts, each as long as can be."""
    if not separators or _fits(backbone, text):
        return [text]
    parts: list[str] = []
    for piece in re.split(separators[0], text):
        joined = f"{parts[-1]} {piece}" if parts else piece
        if parts and _fits(backbone, joined):
            parts[-1] = joined
        else:
            parts.append(piece)
    return [fitting for part in parts for fitting in _fitting(backbone, part, separators[1:])]


def _fits(backbone: Backbone, text: str) -> bool:
    try:
        template_prompts(backbone, [text], "{}")
    except PromptTooLongError:
        return False
    return True

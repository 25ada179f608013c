"""Parameters that several methods declare, each once: `n_ctx: int | None = N_CTX`."""

from __future__ import annotations

from coopt.parameters import parameter
from coopt.prompts.descriptions import check_descriptions
from coopt.prompts.templates import DEFAULT_TEMPLATE, template_list
from coopt.text.layout import clean_name

MAX_SEED = 2**32 - 1
"""The largest that all libraries take which draw from it."""

N_CTX = parameter(
    default=None,
    low=1,
    option=True,
    metavar="M",
    help="Number of context vectors, which then begin at random.",
    doc="M, the number of context vectors, which begin at random, N(0, 0.02).",
)

N_CTX_OF_TWO = parameter(
    default=2,
    low=1,
    help='M, the number of vectors in each block; in the first they begin as the first words of "a photo of a".',
)

INIT = parameter(
    default=None,
    check=lambda words: bool(clean_name(words).strip()),
    said="words such as 'a photo of a', or be left out",
    option=True,
    metavar="WORDS",
    shown_default='"a photo of a", unless --n-ctx is given',
    help="Begin as these words.",
    doc="Words whose token embeddings the context begins with, instead of `n_ctx`; when neither is given: "
    '"a photo of a", so M = 4.',
)

RECIPE = parameter(
    default="fast",
    option=True,
    metavar="[fast|paper]",
    help="How to train.",
    doc='How to train: "fast", "paper", a mapping of changed fields, or a `coopt.Recipe`.',
)

SEED = parameter(
    default=1,
    low=0,
    high=MAX_SEED,
    option=True,
    help="Of all that is random.",
    doc="Of all that is random: what is learned begins with it, the order of images and their augmentation.",
)

TEMPLATES = parameter(
    default=DEFAULT_TEMPLATE,
    check=lambda templates: template_list(templates) is not None,  # which says itself what is wrong
    help='The hand-made prompt or prompts, or "ensemble", or "ensemble-80".',
    doc='One prompt such as "a photo of a {}, a type of pet."; several (an ensemble: their text features are averaged); '
    '"ensemble" for the seven that CLIP\'s authors selected, or "ensemble-80" for all of theirs.',
)

TEMPLATE = parameter(
    default=DEFAULT_TEMPLATE,
    check=lambda template: isinstance(template, str) and len(template_list(template)) == 1,
    said='one prompt such as "a photo of a {}."',
    help='The hand-made prompt, such as "a photo of a {}, a type of pet.".',
)

DESCRIPTIONS = parameter(
    default=None,
    check=check_descriptions,
    said="lists of texts by class name, or be left out",
    added_later=True,
    help="What else there is to say of classes: sentences, and other names; --descriptions reads them from a file.",
    doc="What else there is to say of classes, as {name: [text, ...]}: sentences end with a period, all else are other names, "
    "which are put into the templates. The text features of all of them are averaged.",
)

DESCRIPTIONS_BEHIND = parameter(
    default=None,
    check=check_descriptions,
    said="lists of texts by class name, or be left out",
    added_later=True,
    help="What else there is to say of classes; the first text of each stands behind its name in the prompt.",
    doc="What else there is to say of classes, as {name: [text, ...]}. The first text of each stands behind its name in the "
    "prompt, after a comma.",
)

"""Suites: the papers' tables and figures as recipes that can be run, stopped, shared and compared with what is in print.

A suite of one's own is made of what is here: see docs/suites.md.
"""

from coopt.suites.papers import (
    BUNDLED_MODEL,
    ENSEMBLED,
    HAND_MADE,
    LINEAR_PROBE,
    NAIVE,
    RN50,
    RN101,
    VIT_B16,
    VIT_B32,
    cocoop,
    coop,
)
from coopt.suites.suite import (
    AVERAGE,
    OWN_ENSEMBLE,
    OWN_TEMPLATE,
    Bundled,
    Data,
    Entry,
    Model,
    Published,
    Suite,
    published_row,
)

__all__ = [
    "AVERAGE",
    "BUNDLED_MODEL",
    "ENSEMBLED",
    "HAND_MADE",
    "LINEAR_PROBE",
    "NAIVE",
    "OWN_ENSEMBLE",
    "OWN_TEMPLATE",
    "RN50",
    "RN101",
    "VIT_B16",
    "VIT_B32",
    "Bundled",
    "Data",
    "Entry",
    "Model",
    "Published",
    "Suite",
    "cocoop",
    "coop",
    "published_row",
]

"""Names of classes, drawn at random."""

from __future__ import annotations

from hypothesis import strategies as st


def class_names(longest: int) -> st.SearchStrategy[list[str]]:
    """Two to six different names of up to so many letters, digits and punctuation marks of any script."""
    letters = st.characters(codec="utf-8", categories=("L", "N", "P"))
    name = st.text(letters, min_size=1, max_size=longest)
    usable = name.filter(lambda name: "<" not in name and name.replace("_", " ").strip())
    return st.lists(usable, min_size=2, max_size=6, unique=True)

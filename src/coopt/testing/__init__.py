"""For packages that coopt finds through entry points: does what they bring keep what coopt counts on?

    from coopt.testing import check_method, check_source

    def test_my_method():
        check_method(MyMethod)

    def test_my_source():
        check_source(MySource, "tiny")

A check raises AssertionError, which says what was expected. It needs neither pytest nor the network; methods are tested on a
small model with random weights, `small_backbone()`.
"""

from coopt.testing.methods import check_method
from coopt.testing.models import small_backbone
from coopt.testing.sources import check_source

__all__ = ["check_method", "check_source", "small_backbone"]

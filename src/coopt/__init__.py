"""coopt: learn the prompt of a CLIP-like model from a few labelled images.

import coopt

model = coopt.CoOp(n_ctx=4).fit(paths, labels)
model.predict(["new.jpg"])
model.save("my-prompt")

`__init__.pyi` says what is here and where it is from; each is imported when it is first asked for: torch takes seconds, and
`coopt --help` does not need it.
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

try:
    __version__ = version("coopt")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+unknown"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""What people do with coopt, as functions: learn a prompt, classify images with it, measure it, compare methods.

    import coopt

    with coopt.events.listening(print):
        result = coopt.app.fit("photos", out="my-prompt", shots=4, n_ctx=4)

Each takes the fields of its request (`requests.py`) by name, or the whole request, which goes to JSON and back; returns a
frozen dataclass with `to_dict()`; tells what it does as events (`coopt.events`); and raises a `CooptError` that says what to
do. Nothing is printed. The command line is a listener of these functions, and so can be a page or a notebook.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

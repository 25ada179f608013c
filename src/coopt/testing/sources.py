"""What every source of backbones promises, as checks."""

from __future__ import annotations

import copy
import inspect
import os
import re
import subprocess
import sys
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from coopt.backbones.protocol import Backbone, Framing
from coopt.backbones.source import Source
from coopt.backbones.text_tower import TextTower, Tokens
from coopt.errors import BackboneError
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts

_TEXT = "a photo of a red car"
_NAMES = ("cat", "red car", "old oak tree")


def check_source(source: Source | type[Source], name: str = "", device: str = "cpu") -> None:
    """Holds a source of backbones, and one of its backbones, to what coopt counts on.

    The name loads a backbone that is called so; wrong names are refused, and all of that without torch. The text tower
    takes vectors for the tokens they stand for, and what it says of itself is true: causal, of no account of padding,
    of any length, and how its blocks are opened. Features are the same again and again, weights frozen, and so is the fingerprint. Images are
    prepared in the size that the image tower takes.

    Args:
        source: an instance, or the class.
        name: of one of its backbones: what stands behind the scheme. It is loaded twice, without the network.
        device: where it is loaded.

    Raises:
        AssertionError: something is not so; says what.
    """
    source = source() if isinstance(source, type) else source
    _expect(isinstance(source, Source), f"a source is a coopt.backbones.Source, and this one a {type(source).__name__}")
    _check_names(source, name, device)
    _check_names_without_torch(source, name)
    backbone = source.load(name, torch.device(device))
    _check_backbone(backbone, source.scheme if source.alone else f"{source.scheme}:{name}", device)
    _check_tokenizer(backbone)
    with torch.no_grad():
        _check_text(backbone)
        _check_claims(backbone.text, backbone.tokenizer.framing, _ids(backbone))
        _check_images(backbone)
    _check_gradients(backbone)
    _check_blocks(backbone)
    _check_text_path(backbone)
    _check_list(source, name, backbone)
    again = source.load(name, torch.device(device))
    _expect(again.fingerprint == backbone.fingerprint, "the fingerprint must be the same each time a model is loaded")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(f"{otherwise[0].upper()}{otherwise[1:].rstrip('.')}.")


def _near(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors are equal but for rounding, measured on the larger one."""
    return one.shape == other.shape and bool((one - other).norm() <= tolerance * max(one.norm(), other.norm()))


# ---- names


def _check_names(source: Source, name: str, device: str) -> None:
    source.check(name)
    if source.alone:
        return
    wrong = f"{name}-no-such-model"
    try:
        source.check(wrong)
        source.load(wrong, torch.device(device))
    except BackboneError as error:
        said = re.split("[:/]", wrong)[-1] in str(error)
        _expect(said, f"the error for a name of no model must say the name ({wrong}); it says: {error}")
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise AssertionError(f"A name of no model must be refused with a BackboneError, not with {what}.") from error
    else:
        raise AssertionError(f"{wrong!r} is the name of no model, and was loaded.")


def _check_names_without_torch(source: Source, name: str) -> None:
    """In a process of its own, where the source is a class of a module that can be imported there."""
    kind = type(source)
    if kind.__module__ == "__main__" or "<" in kind.__qualname__:
        return
    program = (
        f"import importlib, operator, sys; module = importlib.import_module({kind.__module__!r}); "
        f"source = operator.attrgetter({kind.__qualname__!r})(module)(); "
        f"source.check({name!r}); source.list(); source.local(); sys.exit(3 * ('torch' in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    _expect(
        done.returncode != 3,
        f"names must be checked and listed without torch, and the module {kind.__module__} imports it: do so in load",
    )
    _expect(done.returncode == 0, f"names cannot be checked in another process: {done.stderr}")


def _check_list(source: Source, name: str, backbone: Backbone) -> None:
    rows = [row for row in source.list() if name in row.specs]
    specs = [spec for row in source.list() for spec in row.specs]
    _expect(len(specs) == len(set(specs)), "a model must be listed once")
    for row in rows:
        _expect(row.supported, f"{name!r} is listed as not supported, and loads")
        length = backbone.text.context_length
        _expect(row.context_length in (0, length), f"the list must say the tower's context length, which is {length}")
        path = backbone.text.text_path
        _expect(row.text_path in ("", path), f"the list must say the tower's text path, which is {path!r}")


# ---- the backbone and its tokenizer


def _check_backbone(backbone: Any, name: str, device: str) -> None:
    _expect(isinstance(backbone, Backbone), f"load must give a coopt.backbones.Backbone, not {backbone!r}")
    _expect(backbone.name == name, f"the backbone must be called {name!r}, not {backbone.name!r}")
    _expect(backbone.device.type == torch.device(device).type, f"the backbone must be on {device}")
    _expect(copy.deepcopy(backbone) is backbone, "a copy of a backbone must be the backbone itself")
    head = backbone.score_head
    _expect(head.scale > 0 and head.link in ("softmax", "sigmoid"), f"this is no score head: {head}")
    _expect(isinstance(backbone.fingerprint, str) and len(backbone.fingerprint) >= 16, "a fingerprint is a hash")
    parts: list[nn.Module] = [backbone.model, backbone.text]
    for part in (*parts, *([backbone.image] if backbone.image is not None else [])):
        what = type(part).__name__
        asking = [key for key, weight in part.named_parameters() if weight.requires_grad]
        _expect(
            not asking, f"weights must be frozen (coopt.backbones.frozen): {what} asks for gradients of {asking[:3]}"
        )
        learning = [key for key, module in part.named_modules() if key and module.training]
        _expect(not learning, f"{what} must be in evaluation mode (coopt.backbones.frozen); not so are {learning[:3]}")


def _check_tokenizer(backbone: Backbone) -> None:
    tokenizer, framing = backbone.tokenizer, backbone.tokenizer.framing
    ids = tokenizer.encode(_TEXT)
    special = {framing.start, framing.end}
    _expect(len(ids) > 0 and all(type(i) is int for i in ids), f"encode must give a list of int. Got {ids!r}")
    _expect(not special & set(ids), f"encode must leave out the start and end tokens {special}. Got {ids}")
    _expect(max(*ids, framing.end, framing.pad) < tokenizer.vocab_size, "all ids must be below vocab_size")
    _expect(
        tokenizer.decode(ids).replace(" ", "").lower() == _TEXT.replace(" ", ""),
        f"decode must give the text again. Got {tokenizer.decode(ids)!r} for {_TEXT!r}",
    )


# ---- the text tower


def _ids(backbone: Backbone) -> Tensor:
    """Token ids of two prompts at the tower's full length."""
    framing, encode = backbone.tokenizer.framing, backbone.tokenizer.encode
    ids = torch.full((2, backbone.text.context_length), framing.pad, device=backbone.device)
    start = [] if framing.start is None else [framing.start]
    for i, text in enumerate((_TEXT, "one cat")):
        row = [*start, *encode(text), framing.end]
        ids[i, : len(row)] = torch.tensor(row)
    return ids


def _words(framing: Framing, ids: Tensor) -> Tensor:
    """Positions of the first prompt at which words stand."""
    special = [framing.end, framing.pad] if framing.start is None else [framing.start, framing.end, framing.pad]
    before_end = torch.arange(len(ids[0]), device=ids.device) < (ids[0] == framing.end).int().argmax()
    return (before_end & ~torch.isin(ids[0], torch.tensor(special, device=ids.device))).nonzero()[:, 0]


def _changed(vectors: Tensor, positions: Tensor | slice) -> Tensor:
    """Vectors of the first prompt changed at some positions; not by a constant, which a layer norm would take away."""
    changed = vectors.clone()
    changed[0, positions] += vectors.std() * torch.linspace(-2, 2, vectors.shape[-1], device=vectors.device)
    return changed


def _check_text(backbone: Backbone) -> None:
    tower, ids = backbone.text, _ids(backbone)
    vectors = tower.embed(ids)
    shape = (*ids.shape, tower.width)
    _expect(vectors.shape == shape, f"embed must give vectors of the shape {shape}. Got {tuple(vectors.shape)}")
    _expect(
        torch.equal(tower.embed(ids.flip(1)), vectors.flip(1)), "embed must give token embeddings without positions"
    )
    features = tower(vectors, ids)
    shape = (len(ids), backbone.embed_dim)
    _expect(features.shape == shape, f"the text tower must give features {shape}. Got {tuple(features.shape)}")
    _expect(features.dtype == torch.float32 and bool(features.isfinite().all()), "features must be finite float32")
    _expect(torch.equal(tower(vectors, ids), features), "the text tower must give the same features again")
    _expect(_near(tower(vectors[:1], ids[:1]), features[:1]), "a prompt's feature must not depend on other prompts")
    words = _words(backbone.tokenizer.framing, ids)
    changed = torch.stack([_changed(vectors, i)[0] for i in words])
    moved = (tower(changed, ids[:1].expand(len(words), -1)) - features[0]).abs().amax(-1)
    unmoved = features[0].abs().max() * 1e-6  # where a prompt's place in the batch changes the last bits
    _expect(
        bool((moved > unmoved).all()), "the text tower must compute with all vectors, also where words stand in the ids"
    )
    learned = ids.clone()
    learned[0, words] = backbone.tokenizer.framing.placeholder
    same = _near(tower(vectors, learned), features)
    _expect(same, "the text tower must take the vectors where they are learned, and ids for masks and pooling only")
    encode_text = getattr(backbone.model, "encode_text", None)
    if callable(encode_text):
        plain = {"normalize": False} if "normalize" in inspect.signature(encode_text).parameters else {}
        same = _near(features, encode_text(ids, **plain))  # type: ignore[arg-type]
        _expect(same, "the text tower must give the features of the model's own encode_text")


def _check_claims(tower: TextTower, framing: Framing, ids: Tensor) -> None:
    """What a tower says of itself, against what a change of its input does."""
    end = int((ids[0] == framing.end).int().argmax())
    vectors, features = tower.embed(ids), tower(tower.embed(ids), ids)
    if tower.any_length:
        _expect(not tower.padding_matters, "a tower of any_length must not depend on padding")
        same = _near(tower(vectors[:1, : end + 1], ids[:1, : end + 1]), features[:1], 1e-5)
        _expect(
            same, "a prompt that is cut behind its end token must keep its feature: the tower must not say any_length"
        )
    if not tower.padding_matters:
        same = _near(tower(_changed(vectors, slice(end + 1, None)), ids), features, 1e-5)
        _expect(same, "padding changes the features: the tower must say that padding_matters")
    if tower.causal and tower.pooling != "last":
        later = ids.clone()  # words and not padding, which the tower may mask
        later[0, end + 1 :] = framing.placeholder
        with_words = tower(vectors, later)
        same = _near(tower(_changed(vectors, slice(end + 1, None)), later), with_words, 1e-5)
        _expect(same, "what stands behind the end token changes the features: the tower must not say that it is causal")
    if tower.open is not None:
        _expect(
            tower.causal != tower.padding_matters,
            "a tower that opens its blocks must be causal and not depend on padding, or neither, and say so",
        )


def _check_gradients(backbone: Backbone) -> None:
    ids = _ids(backbone)
    vectors = backbone.text.embed(ids).detach().clone().requires_grad_()
    features = backbone.text(vectors, ids)
    if features.requires_grad:
        features[0].sum().backward()
    gradient, words = vectors.grad, _words(backbone.tokenizer.framing, ids)
    reached = gradient is not None and bool(gradient[0, words].abs().amax(-1).gt(0).all() and gradient.isfinite().all())
    _expect(reached, "gradients of the features must reach the vectors")


def _check_blocks(backbone: Backbone) -> None:
    """Vectors that stand at the input of a block, where the tower says how many blocks it has."""
    tower, ids = backbone.text, _ids(backbone)
    plain = tower(tower.embed(ids), ids).detach()
    positions = _words(backbone.tokenizer.framing, ids)[:1]
    for block in range(tower.depth):
        vector = torch.ones(1, tower.width, device=ids.device).cumsum(1).div(tower.width).requires_grad_()
        features = tower(tower.embed(ids), ids, {block: Tokens(torch.zeros_like(positions), positions, vector)})
        moved = not torch.equal(features[0], plain[0]) and _near(features[1:], plain[1:])
        if features.requires_grad:
            features[0].sum().backward()
        reached = vector.grad is not None and bool(vector.grad.any())
        _expect(moved and reached, f"vectors at the input of block {block} must take their place there, differentiably")


def _check_text_path(backbone: Backbone) -> None:
    """Whatever the text pass makes of the tower's facts, against the tower's own forward at full length."""
    tower = backbone.text
    if tower.open is None and not tower.any_length:
        return
    prompts = context_prompts(backbone, _NAMES, n_ctx=2)
    context = tower.embed(torch.tensor(backbone.tokenizer.encode(_TEXT)[:2], device=backbone.device)).detach()
    results = []
    for path in ("auto", "reference"):
        learned = context.clone().requires_grad_()
        features = TextEncoder(backbone, prompts, path=path)(learned)
        (features * torch.linspace(-1, 1, features.numel(), device=features.device).view_as(features)).sum().backward()
        assert learned.grad is not None
        results.append((features.detach(), learned.grad))
    (quick, quick_gradient), (slow, slow_gradient) = results
    what = (
        "the blocks that the tower opens" if tower.open is not None else "prompts that are cut behind their end tokens"
    )
    _expect(_near(quick, slow), f"{what} must give the features that its forward gives at full length")
    _expect(_near(quick_gradient, slow_gradient, 1e-3), f"{what} must give its gradients, too")


# ---- images


def _check_images(backbone: Backbone) -> None:
    height, width = backbone.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    images = [
        Image.fromarray(torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8).numpy())
        for size in ((height + 9, 2 * width), (64, 48))
    ]
    pixels = torch.stack([backbone.preprocessing.test(image) for image in images])
    features = backbone.encode_image(pixels)
    shape = (len(images), backbone.embed_dim)
    _expect(features.shape == shape, f"encode_image must give features {shape}. Got {tuple(features.shape)}")
    _expect(features.dtype == torch.float32 and bool(features.isfinite().all()), "features must be finite float32")
    _expect(not torch.equal(features[0], features[1]), "two images must not have the same feature")
    _expect(torch.equal(backbone.encode_image(pixels), features), "encode_image must give the same features again")
    _expect(
        _near(backbone.encode_image(pixels[:1]), features[:1]), "an image's feature must not depend on other images"
    )
    with torch.enable_grad():
        _expect(not backbone.encode_image(pixels).requires_grad, "encode_image must run without gradients")
    if backbone.image is None:
        return
    on_device = pixels.to(backbone.device)
    _expect(_near(backbone.image(on_device), features), "the image tower must give the features of encode_image")
    with torch.enable_grad():
        copied = backbone.image_tower()
        copied(on_device).sum().backward()
    learned = any(weight.grad is not None for weight in copied.parameters())
    _expect(learned, "the image tower's copy must be trainable")
    frozen = not any(weight.requires_grad for weight in backbone.image.parameters())
    _expect(frozen, "the image tower's copy must not share its weights")

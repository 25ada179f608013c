"""Image towers: tokens at the input of blocks, and other weights for one call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from coopt.backbones.clip_towers import fitting_model
from coopt.backbones.image_tower import ImageTower
from coopt.errors import ParameterError, UnsupportedBackboneError

from .small_models import RESNET, configuration, small_model

LAYERS, WIDTH, TOKENS = 3, 64, 2
KINDS: dict[str, dict] = {
    "class token": {},
    "mean": {"pool_type": "avg"},
    "mean, normed afterwards": {"pool_type": "avg", "final_ln_after_pool": True},
    "class token, normed afterwards": {"final_ln_after_pool": True},
    "no norm before": {"no_ln_pre": True},
    "layer scale": {"ls_init_value": 0.3},
}


def tower_of(ours: bool = False, **vision: Any) -> ImageTower:
    model = small_model(vision_cfg={"layers": LAYERS, **vision})
    if ours:
        model = fitting_model(configuration(vision_cfg={"layers": LAYERS}), model.state_dict(), False)
        assert model is not None
        model.eval().requires_grad_(False)
    return ImageTower(model.visual)


@pytest.fixture(params=["our build", *KINDS])
def tower(request: pytest.FixtureRequest) -> ImageTower:
    return tower_of(ours=True) if request.param == "our build" else tower_of(**KINDS[request.param])


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def tokens(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def by_hooks(tower: ImageTower, pixels: Tensor, at_block: dict[int, Tensor]) -> Tensor:
    """The same put in by hooks on the blocks, in the tower's own forward; they are taken out behind the last one."""
    blocks, length = tower.visual.transformer.resblocks, []

    def before(i: int) -> Any:
        def hook(_: nn.Module, inputs: tuple) -> tuple:
            x = inputs[0]
            if i in at_block:
                length.append(length[0] if length else x.shape[1])
                new = at_block[i].expand(len(x), -1, -1)
                x = torch.cat([x[:, : length[0]], new], dim=1)
            return (x, *inputs[1:])

        return hook

    handles = [block.register_forward_pre_hook(before(i)) for i, block in enumerate(blocks)]
    handles.append(blocks[-1].register_forward_hook(lambda _, inputs, output: output[:, : length[0]]))
    try:
        return tower(pixels)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("blocks", [(0,), (0, 1, 2), (2,), (1, 2)])
@pytest.mark.parametrize("each", [False, True], ids=["for all images", "for each image"])
def test_tokens_are_those_that_blocks_see(
    tower: ImageTower, pixels: Tensor, blocks: tuple[int, ...], each: bool
) -> None:
    assert (tower.depth, tower.width) == (LAYERS, WIDTH)
    shape = (len(pixels), TOKENS) if each else (TOKENS,)
    at_block = {block: tokens(*shape, seed=block).requires_grad_() for block in blocks}
    features = tower(pixels, at_block)
    assert torch.allclose(features, by_hooks(tower, pixels, at_block), atol=1e-5)
    assert not torch.allclose(features, tower(pixels), atol=1e-3)
    features.square().sum().backward()
    assert all(one.grad is not None and float(one.grad.abs().amax(-1).min()) > 0 for one in at_block.values())


def test_no_tokens_change_nothing(tower: ImageTower, pixels: Tensor) -> None:
    """What the tower computes itself, where tokens are given, is what the model's own forward computes."""
    assert torch.allclose(tower(pixels, {0: tokens(0)}), tower(pixels), atol=1e-5)
    assert torch.equal(tower(pixels, {}), tower.visual(pixels))


def test_the_norm_before_the_blocks(tower: ImageTower) -> None:
    given = tokens(TOKENS)
    assert torch.equal(tower.pre_norm(given), tower.visual.ln_pre(given))


def test_other_weights_for_one_call(pixels: Tensor) -> None:
    tower = tower_of()
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    weight = tower.get_parameter(name)
    delta = torch.zeros_like(weight).requires_grad_()
    features = functional_call(tower, {name: weight + delta}, (pixels,))
    assert torch.equal(features, tower(pixels))
    features.square().sum().backward()
    assert delta.grad is not None and float(delta.grad.norm()) > 0 and weight.grad is None


def test_towers_without_such_blocks(pixels: Tensor) -> None:
    resnet = ImageTower(small_model(vision_cfg=RESNET).visual)
    assert resnet.depth == resnet.width == 0
    with pytest.raises(
        UnsupportedBackboneError, match="image tower of the kind ModifiedResNet: its blocks are not those"
    ):
        resnet(pixels, {0: tokens(TOKENS)})
    pooled = tower_of(attentional_pool=True, attn_pooler_heads=1)
    assert pooled.depth == 0


@pytest.mark.parametrize(
    ("at_block", "message"),
    [
        ({3: tokens(TOKENS)}, "There is no block 3 in an image tower of 3 blocks, counted from 0"),
        ({-1: tokens(TOKENS)}, "There is no block -1"),
        ({0: tokens(2), 1: tokens(3)}, r"must be given as many tokens. Got \[2, 3\]"),
    ],
)
def test_tokens_that_cannot_be(pixels: Tensor, at_block: dict[int, Tensor], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        tower_of()(pixels, at_block)

"""CLIP's own architecture: two towers built without open_clip, whose import alone takes longer than loading a model.

Radford et al.: "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, arXiv:2103.00020: a
ViT or a ResNet with attention pooling for images, a causal transformer for texts. It is what OpenAI published and what
a good third of open_clip's configurations are; all others are built by open_clip itself. Modules have open_clip's names
and compute in the same order, so weights, features and fingerprints are the same bit for bit.

Notation: n images or texts, L tokens, W width, D width of the shared embedding space.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from coopt.backbones.weights import NOT_WEIGHTS

_KNOWN = {
    "": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"},
    "vision_cfg": {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
"""Settings of a configuration that this architecture has; one that says anything more is another architecture."""


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether one of open_clip's configurations (embed_dim, vision_cfg, text_cfg) describes CLIP's own architecture."""
    parts = {"": config, "vision_cfg": config["vision_cfg"], "text_cfg": config["text_cfg"]}
    return not config.get("custom_text") and all(set(parts[name]) <= known for name, known in _KNOWN.items())


def fitting_model(config: Mapping[str, Any], state: Mapping[str, Tensor], quick_gelu: bool) -> Clip | None:
    """The model with these weights; None where the configuration or the weights are of another kind.

    Args:
        config: see `is_plain`.
        state: see `filled_model`.
        quick_gelu: the activation is QuickGELU even where the configuration does not say so.
    """
    try:
        return filled_model(config, state, quick_gelu) if is_plain(config) else None
    except RuntimeError:
        return None


def filled_model(config: Mapping[str, Any], state: Mapping[str, Tensor], quick_gelu: bool) -> Clip:
    """The model with these weights, in float32.

    Args:
        config: see `is_plain`.
        state: weights by name; those of `NOT_WEIGHTS` are passed over, and logit_scale may be a vector of one.
        quick_gelu: see `fitting_model`.

    Raises:
        RuntimeError: torch's, which names the weights that are missing, too many or of another shape.
    """
    with torch.device("meta"):  # no memory, and no random numbers that would be thrown away
        model = Clip(config, bool(config.get("quick_gelu")) or quick_gelu)
    weights = {name: value for name, value in state.items() if name not in NOT_WEIGHTS}
    if "logit_scale" in weights and weights["logit_scale"].numel() == 1:
        weights["logit_scale"] = weights["logit_scale"].reshape(())
    fill(model, weights)
    model.attn_mask = causal_mask(model.context_length)
    return model


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives a model that was built without memory its weights, in float32.

    Raises:
        RuntimeError: see `filled_model`.
    """
    # Copies: what lies in a mapped file stands at any address, and products depend on it in the last bits.
    model.load_state_dict({name: _copied(value) for name, value in state.items()}, assign=True)


def set_details(tower: nn.Module, activation: Callable[[], nn.Module], eps: float) -> None:
    """Gives a tower's blocks another activation, and its layer norms another epsilon."""
    for module in tower.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
        elif isinstance(module, Block):
            module.mlp.gelu = activation()


def _copied(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()


def causal_mask(length: int) -> Float[Tensor, "length length"]:
    """Minus infinity where a token would see a later one."""
    return torch.full((length, length), float("-inf")).triu_(1)


class Clip(nn.Module):
    """Both towers of CLIP and the logit scale (as a logarithm).

    Args:
        config: see `is_plain`.
        quick_gelu: the activation of a ViT's and of the text tower's blocks.

    Attributes:
        text_pool_type: a text is read out at its highest id ("argmax"), or at the first `text_eos_id` ("eos").
    """

    attn_mask: Tensor
    text_pool_type = "argmax"
    text_eos_id: int | None = None
    logit_bias = None

    def __init__(self, config: Mapping[str, Any], quick_gelu: bool) -> None:
        super().__init__()
        dim, vision, text = config["embed_dim"], config["vision_cfg"], config["text_cfg"]
        image_size = vision.get("image_size", 224)
        width, head_width = vision.get("width", 768), vision.get("head_width", 64)
        if isinstance(vision.get("layers", 12), int):
            self.visual: nn.Module = VisionTransformer(
                _pair(image_size),
                _pair(vision.get("patch_size", 16)),
                Transformer(
                    width, width // head_width, vision.get("layers", 12), vision.get("mlp_ratio", 4.0), quick_gelu
                ),
                dim,
            )
        else:
            self.visual = ResNet(vision["layers"], width, width * 32 // head_width, image_size, dim)
        width = text.get("width", 512)
        self.transformer = Transformer(
            width, text.get("heads", 8), text.get("layers", 12), text.get("mlp_ratio", 4.0), quick_gelu
        )
        self.context_length: int = text.get("context_length", 77)
        # Neither drawn at random nor filled here: on the meta device torch imports its compiler for that.
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(text.get("vocab_size", 49408), width), False)
        self.positional_embedding = nn.Parameter(torch.empty(self.context_length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, dim))
        self.register_buffer("attn_mask", torch.empty(self.context_length, self.context_length), persistent=False)
        self.logit_scale = nn.Parameter(torch.empty(()))

    def encode_text(self, ids: Int[Tensor, "n context"]) -> Float[Tensor, "n dim"]:
        """Framed and padded token ids to features, not normalised: those of the end token."""
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x, self.attn_mask))
        end = ids if self.text_pool_type == "argmax" else (ids == self.text_eos_id).int()
        return x[torch.arange(len(x), device=x.device), end.argmax(dim=-1)] @ self.text_projection


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), which OpenAI trained with instead of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A residual attention block with normalisation before each half."""

    def __init__(self, width: int, heads: int, hidden: int, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ls_1 = nn.Identity()
        self.ln_2 = nn.LayerNorm(width)
        layers = {
            "c_fc": nn.Linear(width, hidden),
            "gelu": QuickGELU() if quick_gelu else nn.GELU(),
            "c_proj": nn.Linear(hidden, width),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ls_2 = nn.Identity()

    def forward(self, x: Float[Tensor, "n L W"], attn_mask: Tensor | None = None) -> Float[Tensor, "n L W"]:
        """One block; `attn_mask` is added to the attention's scores."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Blocks one after another."""

    def __init__(self, width: int, heads: int, layers: int, mlp_ratio: float, quick_gelu: bool) -> None:
        super().__init__()
        self.width = width
        hidden = int(width * mlp_ratio)
        self.resblocks = nn.ModuleList(Block(width, heads, hidden, quick_gelu) for _ in range(layers))

    def forward(self, x: Float[Tensor, "n L W"], attn_mask: Tensor | None = None) -> Float[Tensor, "n L W"]:
        """All blocks."""
        for block in self.resblocks:
            x = block(x, attn_mask)
        return x


class VisionTransformer(nn.Module):
    """Patches of an image and a class token through a transformer; the class token becomes the feature."""

    pool_type = "tok"

    def __init__(
        self, image_size: tuple[int, int], patch_size: tuple[int, int], transformer: Transformer, dim: int
    ) -> None:
        super().__init__()
        self.image_size = image_size
        width = transformer.width
        patches = (image_size[0] // patch_size[0]) * (image_size[1] // patch_size[1])
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = transformer
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, dim))

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n D"]:
        """Pixels to features, not normalised."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(pixels.shape[0], 1, -1), patches], dim=1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding))
        return self.ln_post(x)[:, 0] @ self.proj


class ResNet(nn.Module):
    """CLIP's ResNet: three convolutions as stem, average pooling before every stride, attention as the last pooling."""

    def __init__(self, layers: Sequence[int], width: int, heads: int, image_size: int, dim: int) -> None:
        super().__init__()
        self.image_size = image_size
        channels = [3, width // 2, width // 2, width]
        for i in (1, 2, 3):
            stride = 2 if i == 1 else 1
            self.add_module(
                f"conv{i}", nn.Conv2d(channels[i - 1], channels[i], 3, stride=stride, padding=1, bias=False)
            )
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels[i]))
            self.add_module(f"act{i}", nn.ReLU(inplace=True))
        self.avgpool = nn.AvgPool2d(2)
        entering = width
        for stage, count in enumerate(layers):
            planes = width * 2**stage
            blocks = []
            for i in range(count):
                blocks.append(Bottleneck(entering, planes, stride=2 if stage and not i else 1))
                entering = 4 * planes
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool(image_size // 32, 32 * width, heads, dim)
        self._stem = [f"{part}{i}" for i in (1, 2, 3) for part in ("conv", "bn", "act")]
        self._stages = [f"layer{stage + 1}" for stage in range(len(layers))]

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n D"]:
        """Pixels to features, not normalised."""
        x = pixels
        for name in (*self._stem, "avgpool", *self._stages, "attnpool"):
            x = self.get_submodule(name)(x)
        return x


class Bottleneck(nn.Module):
    """A residual block of three convolutions; where it halves the image, by average pooling."""

    def __init__(self, entering: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.act2 = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.act3 = nn.ReLU(inplace=True)
        self.stride = stride
        self.downsample: nn.Module | None = None
        if stride > 1 or entering != 4 * planes:
            layers = {
                "-1": nn.AvgPool2d(stride),
                "0": nn.Conv2d(entering, 4 * planes, 1, bias=False),
                "1": nn.BatchNorm2d(4 * planes),
            }
            self.downsample = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.avgpool(y)))
        y += x if self.downsample is None else self.downsample(x)
        return self.act3(y)


class AttentionPool(nn.Module):
    """One attention layer whose query is the mean of all positions, which stands before them."""

    def __init__(self, grid: int, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(grid**2 + 1, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, dim)
        self.num_heads = heads

    def forward(self, x: Float[Tensor, "n W h w"]) -> Float[Tensor, "n D"]:
        """A grid of features to one."""
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x]) + self.positional_embedding[:, None]
        pooled, _ = F.multi_head_attention_forward(
            x,
            x,
            x,
            x.shape[-1],
            self.num_heads,
            in_proj_weight=None,
            in_proj_bias=torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias,
            training=self.training,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
        )
        return pooled[0]


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

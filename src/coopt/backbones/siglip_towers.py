"""SigLIP's architecture: two vision and text transformers without causal mask, trained with a sigmoid of each score.

Zhai et al.: "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, arXiv:2303.15343; SigLIP 2 at a fixed resolution
(Tschannen et al., 2025, arXiv:2502.14786) is the same with other weights and another tokenizer. Blocks are CLIP's. A text
is read out at its last position, padding or not; an image by one attention of a learned query to all patches.

Notation: n images or texts, L tokens, W width, D width of the shared embedding space.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coopt.backbones.clip_towers import Transformer


class Siglip(nn.Module):
    """Both towers of SigLIP, the logit scale (as a logarithm) and the logit bias; the text modules have open_clip's names.

    Args:
        visual: the image tower.
        vocabulary: number of token ids.
        context_length: tokens of a text, all of which are seen.
        transformer: of the text tower.
        dim: D.
    """

    attn_mask = None
    text_pool_type = "last"

    def __init__(
        self, visual: SiglipVision, vocabulary: int, context_length: int, transformer: Transformer, dim: int
    ) -> None:
        super().__init__()
        self.visual = visual
        self.context_length = context_length
        width = transformer.width
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(vocabulary, width), False)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.transformer = transformer
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Linear(width, dim)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = nn.Parameter(torch.empty(()))

    def encode_text(self, ids: Int[Tensor, "n context"]) -> Float[Tensor, "n dim"]:
        """Token ids, padded to the context length, to features that are not normalised."""
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding)
        return self.text_projection(self.ln_final(x)[:, -1])


class SiglipVision(nn.Module):
    """Patches of an image through a transformer; one query that was learned attends to what it makes of them.

    Args:
        image_size: height and width in pixels.
        patch_size: of a patch.
        transformer: of the patches.
        hidden: width of the feed-forward layer behind the query's attention.
        heads: of that attention.
    """

    def __init__(self, image_size: int, patch_size: int, transformer: Transformer, hidden: int, heads: int) -> None:
        super().__init__()
        self.image_size = (image_size, image_size)
        width = transformer.width
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.positional_embedding = nn.Parameter(torch.empty((image_size // patch_size) ** 2, width))
        self.transformer = transformer
        self.ln_post = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_head = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, hidden), "gelu": nn.GELU(), "c_proj": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n D"]:
        """Pixels to features, not normalised."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = self.ln_post(self.transformer(patches + self.positional_embedding))
        pooled = self.attn(self.query.expand(len(x), -1, -1), x, x, need_weights=False)[0][:, 0]
        return pooled + self.mlp(self.ln_head(pooled))

"""The transformer fusion block: cross-attention between panorama and satellite tokens, layer after layer.

After Shen et al., ICAFusion: Iterative Cross-Attention Guided Feature Fusion, Pattern Recognition 2024.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from model.deterministic import adaptive_average_pool, adaptive_maximum_pool
from model.interface import resize

DROPOUT = 0.1  # of the attention, its output and the MLPs; the decoder's rate is a setting


class LayerAttention(NamedTuple):
    """One layer's attention (B, heads, N, N): rows are queries and sum to 1; tokens go row by row."""

    panorama_to_satellite: torch.Tensor  # panorama queries over satellite keys
    satellite_to_panorama: torch.Tensor


class TransformerFusionBlock(nn.Module):
    """Two feature maps -> one map on the anchors' grid, fused by cross-attention.

    Each map is pooled to `anchors` (rows, columns) tokens. These pass `n_layer` cross blocks, are resized to
    the map, added to it, and fused with the other view's by a convolution.
    """

    def __init__(self, d_model, anchors, n_layer, num_heads, block_exp):
        super().__init__()
        self.anchors = tuple(anchors)
        self.panorama_tokens = _Tokens(d_model, self.anchors)
        self.satellite_tokens = _Tokens(d_model, self.anchors)
        self.layers = nn.ModuleList(_CrossBlock(d_model, num_heads, block_exp) for _ in range(n_layer))
        self.panorama_skip = nn.Parameter(torch.ones(1))
        self.satellite_skip = nn.Parameter(torch.ones(1))
        conv = nn.Conv2d(2 * d_model, d_model, 1, bias=False)
        self.fuse = nn.Sequential(conv, nn.BatchNorm2d(d_model), nn.SiLU())

    def forward(self, panorama_map, satellite_map, return_attention=False):
        """Fuse (B, d_model, hp, wp) and (B, d_model, hs, ws) maps into one of (B, d_model, *anchors).

        Returns the map, and with `return_attention` one `LayerAttention` per layer, else None.
        """
        panorama = self.panorama_tokens(panorama_map)  # (B, N, d_model)
        satellite, attention = self.satellite_tokens(satellite_map), []
        for layer in self.layers:
            panorama, satellite, weights = layer(panorama, satellite, return_attention)
            attention.append(weights)
        panorama = self._add_skip(panorama, self.panorama_skip, panorama_map)
        satellite = self._add_skip(satellite, self.satellite_skip, satellite_map)
        fused = self.fuse(torch.cat([panorama, satellite], dim=1))
        return fused, attention if return_attention else None

    def _add_skip(self, tokens, weight, x):
        tokens = tokens.transpose(1, 2).unflatten(2, self.anchors)
        return resize(weight * x + resize(tokens, x.shape[-2:]), self.anchors)


class _Tokens(nn.Module):
    """A map pooled to the anchors' grid, average and maximum weighted, with a learned position: (B, N, C)."""

    def __init__(self, d_model, anchors):
        super().__init__()
        self.anchors = anchors
        self.average_weight = nn.Parameter(torch.tensor([0.5]))
        self.maximum_weight = nn.Parameter(torch.tensor([0.5]))
        self.position = nn.Parameter(torch.zeros(1, anchors[0] * anchors[1], d_model))

    def forward(self, x):
        average, maximum = adaptive_average_pool(x, self.anchors), adaptive_maximum_pool(x, self.anchors)
        pooled = self.average_weight * average + self.maximum_weight * maximum
        return pooled.flatten(2).transpose(1, 2) + self.position


class _CrossBlock(nn.Module):
    """Cross-attention both ways, then an MLP per stream; every residual has a learned weight."""

    def __init__(self, d_model, num_heads, block_exp):
        super().__init__()
        self.panorama_norm = nn.LayerNorm(d_model)
        self.satellite_norm = nn.LayerNorm(d_model)
        self.panorama_to_satellite = CrossAttention(d_model, num_heads)
        self.satellite_to_panorama = CrossAttention(d_model, num_heads)
        self.mlp_norm = nn.LayerNorm(d_model)  # shared by both streams
        self.panorama_mlp = _mlp(d_model, block_exp)
        self.satellite_mlp = _mlp(d_model, block_exp)
        self.panorama_attention_residual = nn.Parameter(torch.ones(1))
        self.panorama_mlp_residual = nn.Parameter(torch.ones(1))
        self.satellite_attention_residual = nn.Parameter(torch.ones(1))
        self.satellite_mlp_residual = nn.Parameter(torch.ones(1))

    def forward(self, panorama, satellite, return_attention=False):
        p, s = self.panorama_norm(panorama), self.satellite_norm(satellite)
        from_satellite, panorama_weights = self.panorama_to_satellite(p, s, return_attention)
        from_panorama, satellite_weights = self.satellite_to_panorama(s, p, return_attention)
        panorama = self.panorama_attention_residual * panorama + from_satellite
        satellite = self.satellite_attention_residual * satellite + from_panorama
        panorama = self.panorama_mlp_residual * panorama + self.panorama_mlp(self.mlp_norm(panorama))
        satellite = self.satellite_mlp_residual * satellite + self.satellite_mlp(self.mlp_norm(satellite))
        return panorama, satellite, LayerAttention(panorama_weights, satellite_weights)


class CrossAttention(nn.Module):
    """Multi-head attention of one stream's queries over the other stream's keys and values."""

    def __init__(self, d_model, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, queries, context, return_attention=False):
        """(B, N, C) queries, (B, M, C) context -> (B, N, C), and the weights that `attend` gives."""
        q, k, v = (self._heads(x) for x in (self.query(queries), self.key(context), self.value(context)))
        mixed, weights = attend(q, k, v, DROPOUT if self.training else 0.0, return_attention)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2))), weights

    def _heads(self, x):
        B, N, C = x.shape
        return x.view(B, N, self.num_heads, C // self.num_heads).transpose(1, 2)  # (B, heads, N, C / heads)


def attend(q, k, v, dropout=0.0, return_attention=False):
    """Scaled dot-product attention of (B, heads, N, d) queries, and its weights before dropout, or None.

    The weights cost their (B, heads, N, M) memory; without them PyTorch's fused kernels give the same output.
    """
    if not return_attention:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout), None
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return F.dropout(weights, dropout) @ v, weights


def _mlp(d_model, expansion):
    wide = expansion * d_model
    return nn.Sequential(nn.Linear(d_model, wide), nn.GELU(), nn.Linear(wide, d_model), nn.Dropout(DROPOUT))

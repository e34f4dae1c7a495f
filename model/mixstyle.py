"""MixStyle: mixing the channel statistics of samples, so that a network relies less on a city's style.

Zhou et al., Domain Generalization with MixStyle, ICLR 2021.
"""

import torch
from torch import nn

MIX_MODES = ("random", "crossdomain")


class MixStyle(nn.Module):
    """In training and with `probability`, blends the style of each sample of a batch with another sample's.

    A style is the mean and the standard deviation of each channel over height and width. The blend's weight
    is drawn from Beta(alpha, alpha), one per sample. The partner is drawn from the whole batch
    (`mix='random'`) or, if its halves are two cities, from the other half (`'crossdomain'`). The module has
    no parameters and draws from torch's global generators. Raises ValueError for another `mix`.
    """

    def __init__(self, probability=0.3, alpha=0.1, mix="random", eps=1e-6):
        super().__init__()
        if mix not in MIX_MODES:
            raise ValueError(f"mixstyle_mix {mix!r}: expected one of {', '.join(MIX_MODES)}")
        self.probability, self.alpha, self.mix, self.eps = probability, alpha, mix, eps

    def forward(self, x, city=None):
        """(B, C, H, W) restyled. Returns `x` unchanged in evaluation mode, for batches of one, and by chance.

        city: (B,), the samples' domains; without it, 'crossdomain' treats each half as a domain.
        """
        if not self.training or len(x) < 2:
            return x
        alpha = torch.full((len(x), 1, 1, 1), float(self.alpha), device=x.device)
        weight = torch.distributions.Beta(alpha, alpha, validate_args=False).sample()
        mixed = mix_styles(x, self.partners(len(x), x.device, city), weight, self.eps)
        # The choice stays on the device: reading it would make a GPU wait.
        return torch.where(torch.rand((), device=x.device) < self.probability, mixed, x)

    def partners(self, batch_size, device=None, city=None):
        """The index of each sample's partner: a permutation, int64 (B,)."""
        if self.mix == "random":
            return torch.randperm(batch_size, device=device)
        half = batch_size // 2
        first = torch.randperm(half, device=device)
        second = half + torch.randperm(batch_size - half, device=device)
        across = torch.cat([second[:half], first, second[half:]])  # an odd sample stays in its own half
        if city is None:
            return across
        two = (city[:half] == city[0]).all() & (city[half:] == city[-1]).all() & (city[0] != city[-1])
        return torch.where(two, across, torch.randperm(batch_size, device=device))


def mix_styles(x, partners, weight, eps=1e-6):
    """`x` (B, C, H, W) with its style, of weight `weight` (B, 1, 1, 1), blended with its `partners`' (B,)."""
    # Unbiased; no gradient passes through a style.
    variance, mean = torch.var_mean(x.detach().float(), dim=(2, 3), keepdim=True)
    deviation = (variance + eps).sqrt()
    mixed_mean = weight * mean + (1 - weight) * mean[partners]
    mixed_deviation = weight * deviation + (1 - weight) * deviation[partners]
    return ((x - mean) * (mixed_deviation / deviation) + mixed_mean).to(x.dtype)

"""Mixed precision."""

import torch

PRECISIONS = ("auto", "bf16", "fp16", "off")
SMALLEST_SCALE = 1.0  # of fp16's losses; below it gradients do not overflow, they are broken


class Precision:
    """Mixed precision by its flag: 'bf16', 'fp16', 'off', or 'auto' for bf16 on GPUs that have it.

    `name` is what it came to, `autocast()` the context for the network's forward pass, and `scaler` keeps fp16's gradients
    from vanishing; for the others it passes everything through.
    """

    def __init__(self, flag, device):
        if flag == "auto":
            flag = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "off"
        self.name, self.device = flag, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=flag == "fp16")

    def autocast(self):
        """The context for the forward pass."""
        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.name != "off")

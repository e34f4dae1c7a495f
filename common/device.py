"""What to compute on."""

import torch

from common.errors import UserError
from common.parallel import keep_freed_memory


def pick_device(name):
    """The torch device of a --device value: 'auto', 'cpu', 'cuda:1', ... Readies the CPU for large tensors.

    Raises UserError for a device that cannot be used.
    """
    if not isinstance(name, (str, torch.device)):
        raise UserError(f"--device {name!r}: expected auto, cpu, cuda or cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # which a device without memory, such as meta, refuses
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name} cannot be used here ({str(error).splitlines()[0]}); --device cpu always works"
        ) from None
    if device.type == "cpu":
        keep_freed_memory()
    return device

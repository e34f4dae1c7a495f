"""A batch of uint8 images -> the device -> normalised floats -> the network."""

import torch

_MEAN = torch.tensor((0.485, 0.456, 0.406))  # of ImageNet, as the backbones' weights expect
_STD = torch.tensor((0.229, 0.224, 0.225))


def to_device(batch, device):
    """The batch's tensors on a device; copies from pinned memory do not wait."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def normalise(image):
    """uint8 (B, 3, H, W), or floats within 0 and 255, to floats with ImageNet's mean and standard deviation, channels last."""
    scale = (1 / (255 * _STD)).to(image.device)[:, None, None]
    shift = (-_MEAN / _STD).to(image.device)[:, None, None]
    return torch.addcmul(shift, image.float(), scale).contiguous(memory_format=torch.channels_last)


def forward(model, batch, **options):
    """Run the network on a batch that is already on its device; `options` go to the network's forward."""
    mask = batch["mask"].float() / 255 if "mask" in batch else None
    known = {name: batch.get(name) for name in ("metres_per_pixel", "city")}
    return model(normalise(batch["panorama"]), normalise(batch["satellite"]), mask, **known, **options)

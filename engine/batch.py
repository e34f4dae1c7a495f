"""A batch of uint8 images -> the device -> normalised floats -> the network."""

from efficientnet_pytorch.utils import normalise


def to_device(batch, device):
    """The batch's tensors on a device; copies from pinned memory do not wait."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def forward(model, batch, **options):
    """Run the network on a batch that is already on its device; `options` go to the network's forward."""
    mask = batch["mask"].float() / 255 if "mask" in batch else None
    known = {name: batch.get(name) for name in ("metres_per_pixel", "city", "camera")}
    return model(normalise(batch["panorama"]), normalise(batch["satellite"]), mask, **known, **options)

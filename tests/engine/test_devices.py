"""Tensors on the wrong device, found on a machine that has no such device.

Fake tensors have a shape and a device and no values. Operations on tensors of two devices raise, and so does
all that depends on values, for which a GPU would have to wait.
"""

from dataclasses import replace

import pytest
import torch
from children import SMALL_VIEW, draw_batch, make_network
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from common.camera import Camera
from dataset.augment import MODES, augment
from engine.inference import decode
from engine.inference.predictor import Predictor, make_inputs, to_device
from engine.inference.reliability import as_trained
from loss.criterion import Criterion
from model.settings import NETWORKS


@pytest.fixture
def mode():
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def on_gpu(batch):
    return to_device(batch, "cuda:0")


def network_on_gpu(mode, view, name, settings):
    """A network as `.to("cuda:0")` would leave it: parameters and buffers there, the rest where it is."""
    with _disable_current_modes():
        fixed = {"backbone": NETWORKS[name], "d_model": 64, "use_mixstyle": False}
        network = make_network(view, network=name, **fixed | settings)
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(mode.from_tensor(value.detach()).to("cuda:0"))
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = mode.from_tensor(value).to("cuda:0")
    return network


@pytest.mark.parametrize("name", MODES)
def test_augmentation_stays_on_its_device(mode, name):
    changed = augment(on_gpu(draw_batch(0)), name, SMALL_VIEW, scale_noise=1.1, heading_error=3.0)
    tensors = [x.values if isinstance(x, Camera) else x for x in changed.values()]
    assert {str(tensor.device) for tensor in tensors} == {"cuda:0"}


class NoDoubles(TorchDispatchMode):
    """Raises where a tensor on the device becomes float64, which Apple's GPUs do not have."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, torch.Tensor) and x.device.type == "cuda" and x.dtype == torch.float64:
                raise TypeError(f"{function} makes float64 on the device")
        return made


PHOTOGRAPHS = {"camera": "photo", "ori_noise": 180.0, "tilt_noise": 6.0}
SEVERAL = {"planes": (1.0, 3.0), "cell_confidence": True, "height_factor": 1.65, "heading_bins": 8}


@pytest.mark.parametrize(
    ("name", "settings", "asked"),
    [
        ("light", {}, {}),
        pytest.param("published", {}, {}, marks=pytest.mark.slow),
        pytest.param("ground_plane", {}, {"tta": 8}, marks=pytest.mark.slow),
        pytest.param("light", SEVERAL, {"ori_noise": 180.0}, marks=pytest.mark.slow),
        pytest.param("light", {}, PHOTOGRAPHS, marks=pytest.mark.slow),
    ],
)
def test_networks_train_and_predict_on_their_device(mode, name, settings, asked):
    view = replace(SMALL_VIEW, **asked)
    network = network_on_gpu(mode, view, name, settings)
    with NoDoubles():
        batch = augment(on_gpu(draw_batch(0)), "full", view)
        found = network.train()(make_inputs(batch, view))
        tilt = network.settings.estimate_tilt
        loss = Criterion("infonce", 0.1, estimates_tilt=tilt)(found, batch)["loss"]
        assert loss.device.type == found.logits.device.type == "cuda"
        found = Predictor(network.eval(), view, "cuda:0")(batch)
        position = decode.locate(found.logits, 0.1)
        probability = as_trained(network.settings).probability(found, batch["metres_per_pixel"])
        assert decode.mass_within(probability, position, batch["metres_per_pixel"]).device.type == "cuda"

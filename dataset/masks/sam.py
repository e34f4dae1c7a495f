"""Masks from Segment Anything with point prompts, as in the thesis, through `transformers`."""

import numpy as np
import torch
from transformers import SamModel, SamProcessor
from transformers.utils import logging

from common.device import pick_device
from common.errors import UserError


class Segmenter:
    """Segment Anything from the Hugging Face Hub, or from a local folder written by `save_pretrained`.

    name: of the model or folder · device: as for `--device`. Raises UserError if it cannot be loaded.
    """

    def __init__(self, name, device):
        logging.disable_progress_bar()
        self.device = pick_device(device)
        try:
            self.processor = SamProcessor.from_pretrained(name)
            self.model = SamModel.from_pretrained(name).to(self.device).eval()
        except (OSError, ValueError) as error:  # no network, no such model, a folder of something else
            reason = str(error).strip().splitlines()[0]
            fault = f"cannot be loaded ({reason})"
            raise UserError(f"--sam_model {name}: {fault}; a local folder needs no network") from None

    @torch.inference_mode()
    def mask(self, image, points):
        """(H, W) uint8, 255 where the model sees the object under the points.

        image: (H, W, 3) uint8 RGB.
        points: (n, 2) (row, col), prompts of a single mask; n = 0 gives an empty mask.
        """
        if not len(points):
            return np.zeros(image.shape[:2], np.uint8)
        prompts = [points[:, ::-1].tolist()]  # the processor's points are (x, y)
        inputs = self.processor(image, input_points=[prompts], return_tensors="pt").to(self.device)
        logits = self.model(**inputs, multimask_output=False).pred_masks
        sizes = inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        (mask,) = self.processor.post_process_masks(logits.cpu(), *sizes)
        return mask[0, 0].numpy().astype(np.uint8) * 255

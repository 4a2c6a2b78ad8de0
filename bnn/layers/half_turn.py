"""Images turned by 180 degrees."""

import torch
from torch import Tensor, nn

from bnn.ops.memory import empty_channels_last
from bnn.ops.products import part_images


class HalfTurn(nn.Module):
    """Turns images by 180 degrees, in front of a network whose kernels are turned, too.

    TensorFlow's padding `same` puts the larger half behind the image where a stride leaves an odd sum; torch's padding
    puts as much before as behind, of which a stride leaves out the end. Each is the other one on the turned image, so
    that a network of TensorFlow behind a half turn needs torch's padding alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., H, W] to the same shape; of images [N, C, H, W] the channels lie last, as convolutions take them."""
        if x.dim() != 4 or x.requires_grad:
            return x.flip(-2, -1)
        turned, images = empty_channels_last(x.shape, x.dtype, x.device), part_images(x[:1].numel())
        for part, of_part in zip(torch.split(x, images), torch.split(turned, images), strict=True):
            of_part.copy_(part.flip(-2, -1))
        return turned

"""Images turned by 180 degrees."""

from torch import Tensor, nn


class HalfTurn(nn.Module):
    """Turns images by 180 degrees, in front of a network whose kernels are turned, too.

    TensorFlow's padding `same` puts the larger half behind the image where a stride leaves an odd sum; torch's padding
    puts as much before as behind, of which a stride leaves out the end. Each is the other one on the turned image, so
    that a network of TensorFlow behind a half turn needs torch's padding alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., H, W] to the same shape."""
        return x.flip(-2, -1)

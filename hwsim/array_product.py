"""Products of a network's layers on tiles of cells: forward, and transposed in the backward pass.

An input is driven, the currents of a tile's lines are sensed and converted, and the codes of the tiles of one output
are added up as numbers. Each line's gain is calibrated, as if before every step: it makes the sensed weights as near to
those of the cells as one factor can. Every example has a scale of its own, the largest of its inputs, which is a number
and not on the array.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from bnn.ops.geometry import Window
from bnn.random.hashing import random_integer
from bnn.random.streams import generator_like
from hwsim.tiles import Tiles, fast_normal_numbers, normal_numbers

_TINY = 1e-30
_FORWARD, _TRANSPOSED = 0, 1
_ONE_PLACE = Window.of()


@dataclass(frozen=True, kw_only=True, eq=False)
class CellArray:
    """The cells of one layer as they are at one time.

    Args:
        conductances_S: of the first and the second junctions: float [2, out, in, kh, kw]; those of a linear layer have
            kh = kw = 1.
        unit_S: difference of the two that is one unit of weight.
        tiles: what the cells lie on.
        read_V: voltage of an input of 1.
        read_s: time of a read.
        seed: of the amplifiers' offsets.
        time: number of this state, which chooses the noise.
    """

    conductances_S: Tensor
    unit_S: float
    tiles: Tiles
    read_V: float
    read_s: float
    seed: int = 0
    time: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """[out, in, kh, kw]."""
        return tuple(self.conductances_S.shape[1:])

    @property
    def channels_a_tile(self) -> int:
        """Inputs of a convolution whose taps share the lines of a tile.

        Raises:
            ValueError: the taps of one input alone are more than the cells of a line.
        """
        _, channels, *kernel = self.shape
        taps = kernel[0] * kernel[1]
        if taps > self.tiles.size:
            raise ValueError(
                f"the {taps} taps of a kernel do not fit on the {self.tiles.size} cells of a tile's line: use larger"
                " tiles"
            )
        return min(channels, self.tiles.size // taps)

    def forward_lines(self) -> list["Lines"]:
        """The lines of the outputs, by the tile of the inputs; weights [out, channels of the tile, kh, kw]."""
        parts = torch.split(self.conductances_S, self.channels_a_tile, dim=2)
        loads = [part.sum(dim=0).flatten(1).T for part in parts]  # [cells, out] each
        return [
            self._sensed(
                (part[0] - part[1]).flatten(1),
                (part[0] - part[1]).flatten(1) * passed.T,
                load_S.sum(dim=0),
                part.shape[1:],
                (_FORWARD, number),
            )
            for number, (part, load_S, passed) in enumerate(zip(parts, loads, self._passed(loads), strict=True))
        ]

    def transposed_lines(self) -> list["Lines"]:
        """The pairs of lines of the inputs, by the tile of the outputs; weights [in * kh * kw, outputs of the tile]."""
        size = min(self.shape[0], self.tiles.size)
        parts = [part.flatten(2).transpose(0, 1) for part in torch.split(self.conductances_S, size, dim=1)]
        lines = []
        for number, (part, passed) in enumerate(
            zip(parts, self._passed([part.flatten(1) for part in parts]), strict=True)
        ):  # [outputs, 2, inputs] each
            sensed = part * passed.view(part.shape)
            true_S, sensed_S = ((one[:, 0] - one[:, 1]).T for one in (part, sensed))
            lines.append(self._sensed(true_S, sensed_S, part.sum(dim=(0, 1)), true_S.shape, (_TRANSPOSED, number)))
        return lines

    def _passed(self, loads: Sequence[Tensor]) -> Sequence[Tensor]:
        """`Tiles.passed` of several tiles, [cells, lines] each, in one pass."""
        most = len(loads[0])
        # A shorter line has no cells at its far end.
        together = torch.cat([F.pad(load, (0, 0, most - len(load), 0)) for load in loads], dim=1)
        widths = [load.shape[1] for load in loads]
        return [
            passed[most - len(load) :]
            for passed, load in zip(torch.split(self.tiles.passed(together), widths, dim=1), loads, strict=True)
        ]

    def _sensed(self, true_S: Tensor, sensed_S: Tensor, line_S: Tensor, shape: Any, key: tuple[int, int]) -> "Lines":
        weights, true = sensed_S / self.unit_S, true_S / self.unit_S
        power = weights.square().sum(dim=1)
        gain = torch.where(power > 0, (true * weights).sum(dim=1) / power.clamp_min(_TINY), 1.0)
        offset = None
        if self.tiles.sense_offset:
            numbers = normal_numbers(len(weights), self.seed, *key, place=weights.device)
            offset = (self.tiles.sense_offset * numbers).to(weights.dtype)
        return Lines(
            weights=weights.reshape(shape),
            gain=gain,
            swing=self.tiles.adc_range * power.sqrt(),
            offset=offset,
            noise=self.tiles.noise(line_S, read_V=self.read_V, read_s=self.read_s, unit_S=self.unit_S),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Lines:
    """The sensed lines of one tile.

    Args:
        weights: what the amplifiers see of the cells, [lines, ...], in units of one cell.
        gain: that a converter's codes are multiplied by, [lines].
        swing: range of the converters for inputs of mean square 1, [lines].
        offset: of the amplifiers, [lines]; None for none.
        noise: its standard deviation, [lines]; None for none.
    """

    weights: Tensor
    gain: Tensor
    swing: Tensor
    offset: Tensor | None
    noise: Tensor | None

    def converted_(
        self,
        current: Tensor,
        rms: Tensor,
        tiles: Tiles,
        generator: torch.Generator | None,
        *,
        lines: slice = slice(None),
    ) -> Tensor:
        """What the converters make of currents, which it changes, times the gain: in their shape.

        Args:
            current: [B, lines, ...].
            rms: root of the mean square of each example's inputs, [B, 1, ...].
            tiles: tell the converters' width.
            generator: of the noise, if there is any.
            lines: which ones these are.
        """
        ones = [1] * (current.dim() - 2)
        gain, swing = (value[lines].view(1, -1, *ones) for value in (self.gain, self.swing))
        if self.offset is not None:
            current.add_(self.offset[lines].view(1, -1, *ones))
        if self.noise is not None and generator is not None:
            current.addcmul_(fast_normal_numbers(current, generator), self.noise[lines].view(1, -1, *ones))
        if tiles.adc_bits is None:
            return current.mul_(gain)
        largest = (1 << (tiles.adc_bits - 1)) - 1
        step = (swing * rms / largest).clamp_min(_TINY)
        return current.mul_(1 / step).round_().clamp_(-largest, largest).mul_(step * gain)


def array_product(x: Tensor, weight: Tensor, array: CellArray, window: Window | None) -> Tensor:
    """The product of a layer on an array, whose backward pass is a transposed product on the same cells.

    The gradient of the weight is formed as numbers, of the inputs and gradients as they are.

    Args:
        x: [..., K], or images [N, C, H, W].
        weight: takes the gradient of the weight; its values are not looked at.
        array: the cells.
        window: of the convolution, or None.

    Returns:
        float32 [..., O] or [N, O, H', W'].

    Raises:
        ValueError: the cells do not fit on the tiles, or the convolution is in groups.
    """
    if window is None:
        images = x.reshape(-1, x.shape[-1], 1, 1)
        product: Tensor = _Product.apply(images, weight, array, _ONE_PLACE)  # type: ignore[no-untyped-call]
        return product.view(*x.shape[:-1], -1)
    if window.groups != 1:
        raise ValueError("a convolution in groups cannot be laid out on tiles: use one without groups")
    return _Product.apply(x, weight, array, window)  # type: ignore[no-any-return, no-untyped-call]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, array: CellArray, window: Window) -> Tensor:
        ctx.save_for_backward(x)
        ctx.array, ctx.window, ctx.weight_shape = array, window, weight.shape
        with torch.autocast(x.device.type, enabled=False):
            return _forward(x.to(array.conductances_S.dtype), array, window)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        grad, array, window = grads[0].to(ctx.array.conductances_S.dtype), ctx.array, ctx.window
        grad_x = grad_weight = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_x = _transposed(grad, array, window, x.shape).to(x.dtype)
            if ctx.needs_input_grad[1]:
                stride, padding, dilation, _ = window.for_torch
                whole = conv2d_weight(  # type: ignore[no-untyped-call]
                    x.to(grad.dtype), array.shape, grad, stride=stride, padding=padding, dilation=dilation
                )
                grad_weight = whole.view(ctx.weight_shape)
        return grad_x, grad_weight, None, None


def _forward(x: Tensor, array: CellArray, window: Window) -> Tensor:
    driven, peak, rms = _driven(x, array.tiles)
    generator = _generator(array, _FORWARD)
    total: Tensor | None = None
    for lines, part in zip(array.forward_lines(), torch.split(driven, array.channels_a_tile, dim=1), strict=True):
        current = F.conv2d(part, lines.weights, None, *window.for_torch)
        converted = lines.converted_(current, rms, array.tiles, generator)
        total = converted if total is None else total.add_(converted)
    assert total is not None
    return total.mul_(peak)


def _transposed(grad: Tensor, array: CellArray, window: Window, x_shape: torch.Size) -> Tensor:
    """The gradient of the input: each tap's currents are converted before they are added up."""
    driven, peak, rms = _driven(grad, array.tiles)
    generator = _generator(array, _TRANSPOSED)
    outputs, channels, height, width = array.shape
    strides, padding, dilation, _ = window.for_torch
    examples, _, rows, columns = grad.shape
    # Channels last: a position's currents are a row of a matrix.
    driven = driven.permute(0, 2, 3, 1).reshape(examples, rows * columns, outputs)
    rms = rms.view(examples, 1, 1)
    padded = grad.new_zeros((examples, *(x_shape[2 + k] + 2 * padding[k] for k in (0, 1)), channels))
    size = min(outputs, array.tiles.size)
    for lines, part in zip(array.transposed_lines(), torch.split(driven, size, dim=2), strict=True):
        by_tap = lines.weights.view(channels, height * width, -1)
        for tap in range(height * width):
            current = part @ by_tap[:, tap].T
            ours = slice(tap, None, height * width)
            converted = lines.converted_(current.mT, rms, array.tiles, generator, lines=ours).mT
            top, left = (place * dilation[k] for k, place in enumerate(divmod(tap, width)))
            under = padded[
                :,
                top : top + strides[0] * (rows - 1) + 1 : strides[0],
                left : left + strides[1] * (columns - 1) + 1 : strides[1],
            ]
            under.add_(converted.view(under.shape))
    inside = padded[:, padding[0] : padding[0] + x_shape[2], padding[1] : padding[1] + x_shape[3]]
    return inside.permute(0, 3, 1, 2) * peak


def _driven(x: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor, Tensor]:
    """What drives the lines, of at most 1 in size; the scale of each example; and the root of its mean square."""
    peak = x.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(_TINY)
    driven = x / peak
    if tiles.dac_bits is not None:
        largest = (1 << (tiles.dac_bits - 1)) - 1
        driven = driven.mul_(largest).round_().div_(largest)
    return driven, peak, driven.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def _generator(array: CellArray, direction: int) -> torch.Generator | None:
    if array.tiles.temperature_K is None:
        return None
    seed = random_integer(array.time, array.seed, direction)
    return generator_like(array.conductances_S, seed)

"""`WeightMeter`: sign flips, entropy, sparsity and quantization error of the weights during training."""

import base64
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.training import Callback, Trainer
from bnn.training.checks import require_numbers
from bnn.weights import WeightStore, named_stores

Figures = dict[str, float]

# Flips are counted once there are so many bytes of them: calls for fewer take longer than their work.
_COUNTED_BYTES = 1 << 18
_TINY = torch.finfo(torch.float32).tiny


class WeightMeter(Callback):
    """Adds figures of the weights that live in stores to each epoch's record and, by layer, to the summary.

    A *flip* is a change of a weight's sign from one step to the next; of weights that can be 0, signs are -, 0 and +.

    - `never_flipped`: share of the weights that have not flipped since the training began.
    - `flip_rate`: flips per weight and step; of the epoch, and in the summary of the whole training.
    - `reflip_rate`: the part of it due to weights that had flipped before. A high value late in training means weights
      that oscillate.
    - `sign_entropy`: in bits, of a layer's signs; what a weight takes in a file that knows their shares alone.
    - `sparsity`: share of zeros, where weights can be 0.
    - `quantization_error`: |w - a q|^2 / |w|^2 of a trained value w (a latent weight; with `ReCU` the standardised and
      clamped one) and its levels q, under the best factor a of each filter; 0.363 for normal values and their signs.
    - `clipped_share`: share of the weights beyond the bound of their quantizer, such as `ReCU`.

    Those of the network are means over all weights that have the figure. Where none has it, it is left out. In the
    summary, `weight_state` is {layer: {figure: value}}.

    Between steps the meter keeps the signs and one more bit a weight, 2 bits for binary weights and 3 for others, and
    at most 256 KiB besides. A checkpoint keeps the one bit.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._groups: list[_Group] = []
        # Of all layers, when the epoch began.
        self._earlier = {"steps": 0, "flips": 0, "reflips": 0}

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Looks at the signs, unless a resumed state is in place."""
        if not self._groups:
            self._groups = _groups(trainer)

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Counts the flips of a step."""
        self._steps += 1
        for group in self._groups:
            group.look()

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Adds the figures of the network."""
        if not self._groups:
            return
        layers = self._layers().values()
        figures = [(layer.store.size, layer.figures(self._steps)) for layer in layers]
        for name in dict.fromkeys(name for _, of_layer in figures for name in of_layer):
            have = [(size, of_layer[name]) for size, of_layer in figures if name in of_layer]
            record[name] = sum(size * value for size, value in have) / sum(size for size, _ in have)
        now = {
            "steps": self._steps,
            "flips": sum(layer.flips for layer in layers),
            "reflips": sum(layer.reflips for layer in layers),
        }
        steps, flips, reflips = (now[name] - self._earlier[name] for name in ("steps", "flips", "reflips"))
        chances = max(1, steps) * sum(size for size, _ in figures)
        record["flip_rate"], record["reflip_rate"] = flips / chances, reflips / chances
        self._earlier = now

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Adds the figures of each layer."""
        layers = self._layers()
        names = [name for name, _ in named_stores(trainer.run.model)]
        summary["weight_state"] = {name: layers[name].figures(self._steps) for name in names}

    def state(self) -> dict[str, Any]:
        """The counts, and which weights have flipped, as the base64 of packed bits."""
        layers = {name: layer.state() for name, layer in self._layers().items()}
        return {"steps": self._steps, "earlier": self._earlier, "layers": layers}

    def check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Refuses counts that are no numbers, and bits of other layers."""
        if not state:
            return
        require_numbers(state["steps"], *(state["earlier"][name] for name in self._earlier))
        for name, store in named_stores(trainer.run.model):
            layer = state["layers"][name]
            require_numbers(layer["flips"])
            if len(base64.b64decode(layer["flipped"])) != store.sign_planes()[0].numel():
                raise ValueError(f"the bits of {name} are not as many as its weights")

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Takes them back."""
        if state:
            self._steps, self._earlier = state["steps"], dict(state["earlier"])
            self._groups = _groups(trainer)
            for group in self._groups:
                group.restore(state["layers"])

    def _layers(self) -> "dict[str, _Layer]":
        return {name: layer for group in self._groups for name, layer in group.layers().items()}


def _groups(trainer: Trainer) -> "list[_Group]":
    """The stores of a model: those of binary weights, and those of others."""
    stores: dict[int, dict[str, WeightStore]] = {}
    for name, store in named_stores(trainer.run.model):
        stores.setdefault(len(store.sign_planes()), {})[name] = store
    return [_Group(group) for group in stores.values()]


class _Group:
    """Layers whose signs take equally many planes of bits; these lie side by side, so that a step has few calls."""

    def __init__(self, stores: dict[str, WeightStore]) -> None:
        self._stores = stores
        self._sizes = [store.sign_planes()[0].numel() for store in stores.values()]
        self._signs = self._read()
        # Which weights have ever flipped; laid out as a plane of signs.
        self._flipped = torch.zeros_like(self._signs[0])
        self._uncounted: list[Tensor] = []
        # Of each layer; on the device, so that no step waits for them.
        self._flips = torch.zeros(len(stores), dtype=torch.int64, device=self._signs.device)

    def look(self) -> None:
        signs = self._read()
        changed = reduce(or_, signs ^ self._signs)
        self._flipped |= changed
        self._signs = signs
        self._uncounted.append(changed)
        if len(self._uncounted) * changed.numel() >= _COUNTED_BYTES:
            self._count()

    def layers(self) -> "dict[str, _Layer]":
        self._count()
        parts = zip(
            self._stores.items(),
            torch.split_with_sizes(self._signs, self._sizes, dim=1),
            torch.split_with_sizes(self._flipped, self._sizes),
            self._flips.tolist(),
            strict=True,
        )
        return {name: _Layer(store, *counts) for (name, store), *counts in parts}

    def restore(self, layers: dict[str, dict[str, Any]]) -> None:
        bits = b"".join(base64.b64decode(layers[name]["flipped"]) for name in self._stores)
        self._flipped.copy_(torch.frombuffer(bytearray(bits), dtype=torch.uint8))
        self._flips.copy_(torch.tensor([layers[name]["flips"] for name in self._stores]))

    def _count(self) -> None:
        if self._uncounted:
            ones = torch.split_with_sizes(ones_of_bytes(torch.stack(self._uncounted)), self._sizes, dim=1)
            self._flips += torch.stack([part.sum() for part in ones])
            self._uncounted.clear()

    def _read(self) -> Tensor:
        """The signs, uint8 [planes, bytes]."""
        planes = zip(*(store.sign_planes() for store in self._stores.values()), strict=True)
        return torch.cat([part.view(-1) for plane in planes for part in plane]).view(-1, sum(self._sizes))


@dataclass(frozen=True)
class _Layer:
    store: WeightStore
    signs: Tensor
    flipped: Tensor
    flips: int

    @property
    def ever_flipped(self) -> int:
        return int(count_ones(self.flipped))

    @property
    def reflips(self) -> int:
        """Every flip of a weight but its first."""
        return self.flips - self.ever_flipped

    def figures(self, steps: int) -> Figures:
        size = self.store.size
        chances = max(1, steps) * size
        shares = [int(count_ones(plane)) / size for plane in self.signs]
        figures = {
            "never_flipped": 1 - self.ever_flipped / size,
            "flip_rate": self.flips / chances,
            "reflip_rate": self.reflips / chances,
            "sign_entropy": _entropy_bits([*shares, 1 - sum(shares)]),
        }
        if len(self.signs) > 1:
            figures["sparsity"] = 1 - sum(shares)
        return figures | _distance(self.store)

    def state(self) -> dict[str, Any]:
        bits = base64.b64encode(self.flipped.cpu().numpy().tobytes()).decode("ascii")
        return {"flipped": bits, "flips": self.flips}


def _entropy_bits(shares: list[float]) -> float:
    # Rounding can leave a share a little below 0.
    return float(-sum(share * np.log2(share) for share in shares if share > 1e-12)) + 0.0


@torch.no_grad()
def _distance(store: WeightStore) -> Figures:
    """Quantization error and share of clipped weights, where there is a latent value."""
    if not store.has_latent_weight:
        return {}
    value, levels, figures = store.trained_value().float(), store.read(), {}
    if store.quantizer is not None:
        clipped = store.quantizer.is_clipped(value)
        if clipped is not None:
            figures["clipped_share"] = float(clipped.float().mean())
        value = store.quantizer.clamped(value)
    w, q = (x.flatten(1).float() for x in (value, levels.dense() if isinstance(levels, BitTensor) else levels))
    norm, explained = w.square().sum(1), (w * q).sum(1).square() / q.square().sum(1).clamp_min(_TINY)
    figures["quantization_error"] = float((norm - explained).clamp_min(0).sum() / norm.sum().clamp_min(_TINY))
    return figures


def count_ones(packed: Tensor) -> Tensor:
    """The number of bits that are set in a uint8 tensor, as a scalar of int64."""
    return ones_of_bytes(packed).sum(dtype=torch.int64)


def ones_of_bytes(packed: Tensor) -> Tensor:
    """The number of bits that are set in each element of a uint8 tensor, uint8 in its shape."""
    # Sums of neighbouring bits, then of pairs, then of halves.
    x = packed - ((packed >> 1) & 0x55)
    x = (x & 0x33) + ((x >> 2) & 0x33)
    return (x + (x >> 4)) & 0x0F

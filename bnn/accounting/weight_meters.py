"""`WeightMeter`: what becomes of the weights while a network trains."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.discrete_store import ProgrammableStore
from bnn.quantizers import ReCU
from bnn.stores import LatentStore, WeightStore
from bnn.training import Callback, Trainer
from bnn.training.weight_state import count_ones, named_stores, sign_planes, trained_value

Figures = dict[str, float]

_TINY = torch.finfo(torch.float32).tiny


class WeightMeter(Callback):
    """Adds figures of the weights that live in stores to each epoch's record and, by layer, to the summary.

    A *flip* is a change of a weight's sign from one step to the next; of weights that can be 0, signs are -, 0 and +.

    - `never_flipped`: share of the weights that have not flipped since the training began.
    - `flip_rate`: flips a weight and step; of the epoch, and in the summary of the whole training.
    - `reflip_rate`: those among them of weights that had flipped before. A high one late in the training tells of
      weights that swing to and fro.
    - `sign_entropy`: in bits, of a layer's signs; what a weight takes in a file that knows their shares alone.
    - `sparsity`: share of zeros, where weights can be 0.
    - `quantization_error`: |w - a q|^2 / |w|^2 of a trained value w (a latent weight; with `ReCU` the standardised and
      clamped one) and its levels q, under the best factor a of each filter; 0.363 for normal values and their signs.
    - `clipped_share`: share of the weights beyond the bound of `ReCU`.

    Those of the network are means over all weights that have the figure. Where none has it, it is left out. In the
    summary, `weight_state` is {layer: {figure: value}}.

    Between steps the meter keeps the signs and one more bit a weight: 2 bits for binary weights, 3 for others. A
    checkpoint keeps the one.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._layers: dict[str, _Layer] = {}
        # Of all layers, when the epoch began.
        self._earlier = {"steps": 0, "flips": 0, "reflips": 0}

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Looks at the signs, unless a resumed state is in place."""
        if not self._layers:
            self._layers = {name: _Layer.of(store) for name, store in named_stores(trainer.run.model)}

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Counts the flips of a step."""
        self._steps += 1
        for layer in self._layers.values():
            layer.look()

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Adds the figures of the network."""
        if not self._layers:
            return
        figures = [(layer.store.size, layer.figures(self._steps)) for layer in self._layers.values()]
        for name in dict.fromkeys(name for _, of in figures for name in of):
            have = [(size, of[name]) for size, of in figures if name in of]
            record[name] = sum(size * value for size, value in have) / sum(size for size, _ in have)
        now = self._sums()
        steps, flips, reflips = (now[name] - self._earlier[name] for name in ("steps", "flips", "reflips"))
        chances = max(1, steps) * sum(size for size, _ in figures)
        record["flip_rate"], record["reflip_rate"] = flips / chances, reflips / chances
        self._earlier = now

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Adds the figures of each layer."""
        summary["weight_state"] = {name: layer.figures(self._steps) for name, layer in self._layers.items()}

    def state(self) -> dict[str, Any]:
        """The counts, and which weights have flipped, as the base64 of packed bits."""
        layers = {name: layer.state() for name, layer in self._layers.items()}
        return {"steps": self._steps, "earlier": self._earlier, "layers": layers}

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Takes them back."""
        if state:
            self._steps, self._earlier = state["steps"], dict(state["earlier"])
            self._layers = {name: _Layer.of(store) for name, store in named_stores(trainer.run.model)}
            for name, layer in self._layers.items():
                layer.restore(state["layers"][name])

    def _sums(self) -> dict[str, int]:
        layers = self._layers.values()
        flips, reflips = (sum(int(layer.counts[i]) for layer in layers) for i in (0, 1))
        return {"steps": self._steps, "flips": flips, "reflips": reflips}


@dataclass
class _Layer:
    store: WeightStore
    signs: tuple[Tensor, ...]
    flipped: Tensor
    """Bits: which weights have ever flipped; laid out as the planes of signs."""
    counts: Tensor
    """Flips and re-flips, int64 [2]; on the device, so that no step waits for them."""

    @classmethod
    def of(cls, store: WeightStore) -> "_Layer":
        signs = sign_planes(store)
        counts = torch.zeros(2, dtype=torch.int64, device=signs[0].device)
        return cls(store, signs, torch.zeros_like(signs[0]), counts)

    def look(self) -> None:
        signs = sign_planes(self.store)
        changed = torch.zeros_like(self.flipped)
        for now, before in zip(signs, self.signs, strict=True):
            changed |= now ^ before
        self.counts += torch.stack([count_ones(changed), count_ones(changed & self.flipped)])
        self.flipped |= changed
        self.signs = signs

    def figures(self, steps: int) -> Figures:
        size = self.store.size
        flips, reflips = (int(count) / (max(1, steps) * size) for count in self.counts)
        shares = [int(count_ones(plane)) / size for plane in self.signs]
        figures = {
            "never_flipped": 1 - int(count_ones(self.flipped)) / size,
            "flip_rate": flips,
            "reflip_rate": reflips,
            "sign_entropy": _entropy_bits([*shares, 1 - sum(shares)]),
        }
        if len(self.signs) > 1:
            figures["sparsity"] = 1 - sum(shares)
        return figures | _distance(self.store)

    def state(self) -> dict[str, Any]:
        bits = base64.b64encode(self.flipped.cpu().numpy().tobytes()).decode("ascii")
        return {"flipped": bits, "counts": self.counts.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        bits = np.frombuffer(base64.b64decode(state["flipped"]), np.uint8).copy()
        self.flipped.copy_(torch.from_numpy(bits).view(self.flipped.shape))
        self.counts.copy_(torch.tensor(state["counts"]))


def _entropy_bits(shares: list[float]) -> float:
    # Rounding can leave a share a little below 0.
    return float(-sum(share * np.log2(share) for share in shares if share > 1e-12)) + 0.0


@torch.no_grad()
def _distance(store: WeightStore) -> Figures:
    """How far the weight is from the trained value behind it, where there is one."""
    if isinstance(store, ProgrammableStore):
        return {}
    value, levels, figures = trained_value(store), store.read(), {}
    if isinstance(store, LatentStore) and isinstance(store.quantizer, ReCU):
        figures["clipped_share"] = float(store.quantizer.is_clipped(value).float().mean())
        value = store.quantizer.clamped(value)
    w, q = (x.flatten(1).float() for x in (value, levels.dense() if isinstance(levels, BitTensor) else levels))
    norm, explained = w.square().sum(1), (w * q).sum(1).square() / q.square().sum(1).clamp_min(_TINY)
    figures["quantization_error"] = float((norm - explained).clamp_min(0).sum() / norm.sum().clamp_min(_TINY))
    return figures

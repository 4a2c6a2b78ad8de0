"""A callback that tells what training took of the junctions."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bnn.cost.count import count_layers
from bnn.layers import BinaryLayer
from bnn.training import Callback, Trainer
from hwsim.store import READ_VOLTAGE_V, READ_WIDTH_S, DeviceStore


class DeviceMeter(Callback):
    """Adds `junctions` to the summary: figures of the junctions, counted since the start of training.

    - `synapses`, `bits_per_synapse`: cells, and what the store keeps of one: its state and, where they are counted,
      the switches of its junctions.
    - `writes`, `pulses`, `switches`: updates of the network, pulses on junctions, and switches by them.
    - `write_energy_J`: of the pulses, from the true resistances and the moment of each switch;
      `write_energy_per_update_J` is its mean for a synapse and update, `write_energy_per_pulse_J` that for a pulse.
    - `reads`, `read_energy_J`: products of the forward passes of training and, where the scheme reads first, reads
      before writes; and the energy of those whose input is not 0, which gates a cell off. The fraction of these inputs
      is that of one batch at the end, and so are the conductances.
    - `transposed_reads`: those of backward passes on tiles, 0 without. Their energy depends on the size of gradients:
      see `hwsim.array_energy`.
    - `fraction_in_0_s`: of the synapses at the end, those whose 0 is two parallel junctions.
    - `switches_per_junction`: their mean; and `max_switches_per_junction` where each junction's are counted.
    """

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Adds up."""
        summary["junctions"] = device_figures(trainer) if _layers(trainer.run.model) else None


def device_figures(trainer: Trainer) -> dict[str, float | str]:
    """See `DeviceMeter`; the model has a layer with a `DeviceStore` at least."""
    stores = [store for _, store in _layers(trainer.run.model).values()]
    totals = {name: sum(store.totals[name] for store in stores) for name in stores[0].totals}
    totals["writes"] = stores[0].totals["writes"]
    synapses = sum(store.size for store in stores)
    state_bits = sum(
        8 * (store.planes.nbytes + (0 if store.cycles is None else store.cycles.nbytes)) for store in stores
    )
    parallel_pairs = sum(int((~store.antiparallel()).all(dim=0).sum()) for store in stores)
    reads, transposed_reads, read_energy_J = _reads(trainer)
    figures: dict[str, float | str] = {
        "scheme": repr(stores[0].scheme),
        "synapses": synapses,
        "bits_per_synapse": state_bits / synapses,
        **totals,
        "write_energy_per_update_J": totals["write_energy_J"] / max(1, totals["writes"] * synapses),
        "write_energy_per_pulse_J": totals["write_energy_J"] / max(1, totals["pulses"]),
        "fraction_in_0_s": parallel_pairs / synapses,
        "switches_per_junction": totals["switches"] / (2 * synapses),
        "reads": reads,
        "transposed_reads": transposed_reads,
        "read_energy_J": read_energy_J,
    }
    counted = [int(store.cycles.max()) for store in stores if store.cycles is not None]
    if counted:
        figures["max_switches_per_junction"] = max(counted)
    return figures


def _layers(model: nn.Module) -> dict[str, tuple[BinaryLayer, DeviceStore]]:
    return {
        name: (module, module.store)
        for name, module in model.named_modules()
        if isinstance(module, BinaryLayer) and isinstance(module.store, DeviceStore)
    }


def _reads(trainer: Trainer) -> tuple[int, int, float]:
    """Reads in all steps, transposed ones, and the energy of the junctions in the former."""
    model, layers = trainer.run.model, _layers(trainer.run.model)
    active: dict[str, float] = {}

    def note(name: str, layer: BinaryLayer, inputs: tuple[Any, ...], output: Tensor) -> None:
        active[name] = float((layer.quantized(inputs[0]) != 0).float().mean())

    hooks = [layer.register_forward_hook(partial(note, name)) for name, (layer, _) in layers.items()]
    model.eval()
    try:
        with torch.no_grad():
            x, _ = next(iter(trainer.batches.epoch(0)))
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    counts = count_layers(model, trainer.run.data.image_shape, batch_size=trainer.batches.batch_size)
    reads, transposed, energy_J = 0, 0, 0.0
    for count in counts:
        if count.name in layers:
            store = layers[count.name][1]
            products = count.multiply_accumulates * (trainer.step - trainer.skipped)
            before_writes = store.totals["writes"] * store.size if store.scheme.read_first else 0
            cell_S = float(store.conductances_S().sum(dim=0).mean())
            reads += products + int(before_writes)
            if store.tiles is not None and count.needs_input_gradient:
                transposed += products
            energy_J += (products * active[count.name] + before_writes) * cell_S * READ_VOLTAGE_V**2 * READ_WIDTH_S
    return reads, transposed, energy_J

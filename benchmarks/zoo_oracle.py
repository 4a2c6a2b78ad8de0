"""Writes what larq-zoo computes to bnn/models/zoo/golden.json, which tests and `bnn zoo verify` hold this package to.

    make oracle
    .venv-oracle/bin/python -m benchmarks.zoo_oracle --out DIR [NETWORK ...]
    .venv/bin/python -m benchmarks.zoo_compare DIR

Each network of larq-zoo gets the weights and statistics of `bnn.models.zoo.check_values` and is given an image of it:
one of 64x64 and 10 classes, where the network takes that, and one of 224x224 and 1000 classes. DIR has then a Keras
file of weights and all logits of each, for the comparison, which reads the file by `bnn zoo import`.
"""

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is loaded

import larq_zoo
import numpy as np
import tensorflow as tf

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "bnn" / "models" / "zoo"
PATH = ZOO / "golden.json"
KEPT = 8  # logits in the file
NETWORKS = {
    "quicknet_small": larq_zoo.sota.QuickNetSmall,
    "quicknet": larq_zoo.sota.QuickNet,
    "quicknet_large": larq_zoo.sota.QuickNetLarge,
    "binary_resnet_e18": larq_zoo.literature.BinaryResNetE18,
    "birealnet": larq_zoo.literature.BiRealNet,
    "binary_alexnet": larq_zoo.literature.BinaryAlexNet,
    "xnornet": larq_zoo.literature.XNORNet,
    "dorefanet": larq_zoo.literature.DoReFaNet,
    "binary_densenet28": larq_zoo.literature.BinaryDenseNet28,
    "binary_densenet37": larq_zoo.literature.BinaryDenseNet37,
    "binary_densenet37_dilated": larq_zoo.literature.BinaryDenseNet37Dilated,
    "binary_densenet45": larq_zoo.literature.BinaryDenseNet45,
    "meliusnet22": larq_zoo.literature.MeliusNet22,
    "real_to_binary_net": larq_zoo.literature.RealToBinaryNet,
}
SMALLEST = {"xnornet": 224}


def load_check_values() -> Any:
    """The module, by its file: the package around it needs torch, which is not installed here."""
    spec = importlib.util.spec_from_file_location("check_values", ZOO / "check_values.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_values = load_check_values()


def kind(layer: Any, weight: Any) -> str:
    """What `check_values` calls a tensor."""
    name = weight.name.rpartition("/")[2].partition(":")[0].replace("depthwise_kernel", "kernel")
    if name != "kernel":
        return str(name)
    if type(layer) is tf.keras.layers.DepthwiseConv2D:
        return "blur"
    return "binary_kernel" if getattr(layer, "kernel_quantizer", None) is not None else "kernel"


def with_check_values(name: str, size: int, classes: int) -> Any:
    """A network with the values for a check; the trained blur of larq-zoo stays what it is made with."""
    model = NETWORKS[name](weights=None, input_shape=(size, size, 3), num_classes=classes)
    layers = [layer for layer in model.layers if layer.weights]
    last = max(index for index, layer in enumerate(layers) if any("kernel" in w.name for w in layer.weights))
    for index, layer in enumerate(layers):
        eps = getattr(layer, "epsilon", 0.0)
        tensors = [(kind(layer, weight), tuple(weight.shape), eps) for weight in layer.weights]
        if all(kind != "blur" for kind, _, _ in tensors):
            layer.set_weights(check_values.layer_values(name, index, tensors, is_last=index == last))
    return model


def logits(model: Any, name: str, size: int) -> np.ndarray:
    """What the softmax of a network takes, [classes]."""
    softmax = model.layers[-1]
    network = tf.keras.Model(model.inputs, softmax.input)
    return network(check_values.image(name, (size, size))[None], training=False).numpy()[0]


def norms(model: Any) -> list[list[float]]:
    """Count, epsilon and momentum of norms that follow each other."""
    found: list[list[float]] = []
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            values = [layer.epsilon, layer.momentum]
            if found and found[-1][1:] == values:
                found[-1][0] += 1
            else:
                found.append([1, *values])
    return found


def windows(model: Any) -> list[float]:
    """Where the gradients of the quantizers that have such an end end."""
    quantizers = [getattr(layer, f"{kind}_quantizer", None) for layer in model.layers for kind in ("input", "kernel")]
    return sorted({float(q.clip_value) for q in quantizers if getattr(q, "clip_value", None) is not None})


def case(name: str, size: int, classes: int, out: Path) -> tuple[Any, dict[str, Any]]:
    """The network, and what is kept of it."""
    model = with_check_values(name, size, classes)
    all_logits = logits(model, name, size)
    np.save(out / f"{name}-{classes}.npy", all_logits)
    if classes == 1000:
        model.save_weights(out / f"{name}.h5")
    step = classes // KEPT
    kept = [float(str(x)) for x in all_logits[: KEPT * step : step]]
    return model, {"size": size, "classes": classes, "step": step, "logits": kept}


def main() -> None:
    """Writes the file anew for the networks that are named, or for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], metavar="NETWORK")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    golden = json.loads(PATH.read_text()) if PATH.exists() else {}
    for name in arguments.networks or NETWORKS:
        tf.keras.backend.clear_session()
        _, small = case(name, SMALLEST.get(name, 64), 10, arguments.out)
        model, full = case(name, 224, 1000, arguments.out)
        golden[name] = {"norms": norms(model), "windows": windows(model), "cases": [small, full]}
        print(name, small["logits"][:3], full["logits"][:3], flush=True)
        PATH.write_text(
            "{\n" + ",\n".join(f'"{key}": {json.dumps(golden[key])}' for key in NETWORKS if key in golden) + "\n}\n"
        )


if __name__ == "__main__":
    main()

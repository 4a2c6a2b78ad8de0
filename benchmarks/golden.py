"""Writes what larq computes to tests/golden/larq.json, which tests/test_golden.py holds this package to.

    make oracle
    .venv-oracle/bin/python -m benchmarks.golden

The file is committed, so that the tests need no TensorFlow. Inputs are multiples of 1/64 and upstream gradients of 1/8:
sums of them are exact in float32 in any order, and the numbers can be compared for equality.
"""

import importlib.metadata
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is loaded

import larq
import larq_zoo
import numpy as np
import tensorflow as tf

PATH = Path(__file__).parents[1] / "tests" / "golden" / "larq.json"
PACKAGES = ("larq", "larq-zoo", "tensorflow-cpu")
NETWORKS = {
    "resnete18": larq_zoo.literature.BinaryResNetE18,
    "birealnet18": larq_zoo.literature.BiRealNet,
}
THRESHOLD = 0.0625  # exact in binary, so that the grid can meet it
SMALLEST = 2 * np.finfo(np.float32).tiny  # its half is still normal: TensorFlow takes denormal numbers for 0
QUANTIZERS = {
    "ste_sign": larq.quantizers.SteSign(),
    "approx_sign": larq.quantizers.ApproxSign(),
    "ste_tern": larq.quantizers.SteTern(threshold_value=THRESHOLD),
    "ste_tern_twn": larq.quantizers.SteTern(ternary_weight_networks=True),
    "magnitude_aware_sign": larq.quantizers.MagnitudeAwareSign(),
}


def grid() -> np.ndarray:
    """Inputs of the quantizers, [inputs, 3 outputs]: -2 to 2, with the neighbours of every place where one jumps."""
    places = np.array([-1, -THRESHOLD, THRESHOLD, 1], np.float32)
    neighbours = [np.nextafter(places, np.float32(end)) for end in (-math.inf, math.inf)]
    around_zero = np.array([-0.0, -SMALLEST, SMALLEST], np.float32)
    column = np.concatenate([np.arange(-2, 2.0625, 0.0625), *neighbours, around_zero]).astype(np.float32)
    # The columns differ in scale, since one quantizer averages over each.
    return np.stack([column, column / 2, column * 2], axis=1)


def sixty_fourths(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/64 in [-2, 2], with exact zeros and ±1 among them."""
    x = rng.integers(-128, 129, shape) / 64
    edges = rng.choice([-1.0, 0.0, 1.0], shape)
    return np.where(rng.random(shape) < 0.2, edges, x).astype(np.float32)


def eighths(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/8 in [-1, 1]."""
    return (rng.integers(-8, 9, shape) / 8).astype(np.float32)


def network(make: Callable[..., Any]) -> dict[str, Any]:
    """Kernel weights of a network of the zoo by kind, and its output shape for one image."""
    model = make(weights=None)
    counts = {True: 0, False: 0}
    for layer in model.layers:
        is_binary = getattr(layer, "kernel_quantizer", None) is not None
        counts[is_binary] += sum(math.prod(w.shape) for w in layer.trainable_weights if "kernel" in w.name)
    return {
        "binary_weights": counts[True],
        "real_weights": counts[False],
        "input_shape": list(model.input_shape[1:]),
        "output_shape": list(model.output_shape[1:]),
    }


def with_gradients(function: Callable[[], Any], variables: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Values of variables, what a function makes of them, and their gradients for a random upstream gradient."""
    with tf.GradientTape() as tape:
        y = function()
    upstream = eighths(rng, tuple(y.shape))
    gradients = tape.gradient(y, variables, output_gradients=tf.constant(upstream))
    return {
        **{name: written(variable.numpy()) for name, variable in variables.items()},
        "y": written(y.numpy()),
        "upstream": written(upstream),
        **{f"gradient_{name}": written(gradient.numpy()) for name, gradient in gradients.items()},
    }


def quantizer_case(quantizer: Callable[[Any], Any]) -> dict[str, Any]:
    """A quantizer on the grid."""
    x = tf.Variable(grid())
    return with_gradients(lambda: quantizer(x), {"x": x}, np.random.default_rng(0))


def layer_case(layer: Any, x_shape: tuple[int, ...]) -> dict[str, Any]:
    """A layer with a kernel and input that cross 0 and ±1."""
    rng = np.random.default_rng(0)
    layer.build(x_shape)
    layer.set_weights([sixty_fourths(rng, layer.kernel.shape)])
    x = tf.Variable(sixty_fourths(rng, x_shape))
    # `latent_variable` is the kernel before its quantizer.
    return with_gradients(lambda: layer(x), {"x": x, "kernel": layer.kernel.latent_variable}, rng)


def written(array: np.ndarray) -> Any:
    """Nested lists of the shortest numbers that read back as the same float32."""
    if array.ndim:
        return [written(part) for part in array]
    return float(str(array))


def main() -> None:
    """Writes the file."""
    signs = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
    }
    conv2d = larq.layers.QuantConv2D(4, 3, strides=2, padding="valid", **signs)
    golden = {
        "made_with": {name: importlib.metadata.version(name) for name in PACKAGES},
        "networks": {name: network(make) for name, make in NETWORKS.items()},
        "threshold": THRESHOLD,
        "quantizers": {name: quantizer_case(quantizer) for name, quantizer in QUANTIZERS.items()},
        "layers": {
            "dense": layer_case(larq.layers.QuantDense(5, **signs), (4, 11)),
            "conv2d_stride_2": layer_case(conv2d, (2, 7, 6, 3)),
        },
    }
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()

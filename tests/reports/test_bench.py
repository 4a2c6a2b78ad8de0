"""The table of `bnn bench`."""

import io

from rich.console import Console

from bnn.reports.bench import print_bench


def test_figures_and_what_is_left_out():
    stream = io.StringIO()
    content = {
        "threads": 1,
        "batch_size": 64,
        "cores": 4,
        "ways": {"bnn": {"latency_s": 0.00123, "images_per_s": 4321.0, "process_bytes": None}},
        "left_out": {"onnxruntime": "it is [not] there"},
    }
    print_bench(Console(file=stream, width=100), content)
    text = stream.getvalue()
    for part in ("1.23 ms", "4,321", "—", "1 of 4 cores", "onnxruntime is left out: it is [not] there"):
        assert part in text

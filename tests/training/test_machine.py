import os

from bnn.training import machine


def test_a_machine_in_words():
    said = machine.machine()
    assert f"{os.cpu_count()} cores" in said
    assert "\n" not in said

import pytest

from bnn.reports.texts import ABSENT, duration, energy, engineering, number, percent, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "12.3 m"),
        (2.25, "2.25 "),
        (999.4, "999 "),
        (999.9, "1 k"),
        (54321, "54.3 k"),
        (1.5e6, "1.5 M"),
        (17.7e9, "17.7 G"),
        (1e-6, "1 µ"),
        (2.5e-9, "2.5 n"),
        (30.5e-12, "30.5 p"),
        (0.0, "0 "),
    ],
)
def test_three_figures_with_a_prefix(value, text):
    assert engineering(value) == text


def test_units():
    assert energy(0.0123) == "12.3 mJ"
    assert percent(0.12345) == "12.35 %"
    assert number(1234.5, ",.0f", " MiB") == "1,234 MiB"
    assert [size(n) for n in (0, 1023, 1536, 3 * 2**20, 5 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.50 KiB",
        "3.00 MiB",
        "5.00 GiB",
    ]
    assert [duration(s) for s in (0.04, 119.94, 4000.4)] == ["0.0 s", "119.9 s", "1:06:40 h"]


@pytest.mark.parametrize("text", [energy(None), percent(None), number(None, ","), duration(None)])
def test_what_there_is_none_of(text):
    assert text == ABSENT

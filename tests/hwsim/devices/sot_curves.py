"""Fractions of 100 pulses of 0.75 ns that switched two junctions by spin-orbit torque, as measured.

Source: github.com/JinChengZ18/smtj_pbnn_sim, data/smtj_psw_curves/measured_0p75ns.csv.
"""

_STEP_V = 0.02


def _curve(first_V: float, *fractions: float) -> dict[float, float]:
    return {round(first_V + _STEP_V * k, 2): fraction for k, fraction in enumerate(fractions)}


SOT_CURVES = {
    ("A", -1): _curve(0.80, 0, 0, 0, 0, 0.04, 0.04, 0.58, 0.78, 0.72, 0.72, 0.72, 0.86, 0.84, 0.88, 0.9, 1),
    ("A", +1): _curve(0.80, 0, 0.02, 0.1, 0.18, 0.34, 0.5, 0.82, 0.84, 0.9, 0.98, 0.94, 1),
    ("B", -1): _curve(0.80, 0, 0.02, 0.36, 0.38, 0.52, 0.74, 0.74, 0.92, 1),
    ("B", +1): _curve(0.84, 0, 0.1, 0.18, 0.4, 0.84, 0.96, 1, 1, 1),
}
"""Fractions by voltage, by the junction's name and the direction: +1 is out of parallel."""

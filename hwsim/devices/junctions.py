"""Named junctions, with the source of their constants. Each function takes the law of switching.

Only `paper` has recalled figures; see there.
"""

import math

import torch

from hwsim.devices.base import SwitchingModel
from hwsim.devices.constants import BOLTZMANN_J_PER_K, VACUUM_PERMEABILITY_T_M_PER_A
from hwsim.devices.erf import Erf
from hwsim.devices.fokker_planck import FokkerPlanck
from hwsim.devices.measured import MeasuredDevice
from hwsim.devices.measured_table import MeasuredTable
from hwsim.devices.mtj import MTJ, perpendicular_critical_current_A
from hwsim.devices.vcma import VoltageControlledMTJ, anisotropy_per_V

ROOM_TEMPERATURE_K = 300.0


def consistent(*, model: SwitchingModel | None = None) -> MTJ:
    """A perpendicular junction of 40 nm whose constants agree with one another; the default.

    Δ = 60 at 300 K, α = 0.02, η = 0.6 and μ0 Hk = 0.3 T are chosen; Ic0 = 50 µA follows. A resistance-area product of
    5 Ωµm² gives R_P = 4.0 kΩ; TMR is 100 %. V_h = 0.5 V is that of `ut_austin`. The Curie temperature is that of a film
    in a junction, see `ANISOTROPY_EXPONENT`.
    """
    energy_barrier_J = 60 * BOLTZMANN_J_PER_K * ROOM_TEMPERATURE_K
    return MTJ(
        energy_barrier_J=energy_barrier_J,
        critical_current_A=perpendicular_critical_current_A(
            energy_barrier_J=energy_barrier_J, damping=0.02, spin_efficiency=0.6
        ),
        damping=0.02,
        anisotropy_field_T=0.3,
        parallel_resistance_ohm=5e-12 / (math.pi * 20e-9**2),
        tmr=1.0,
        tmr_half_voltage_V=0.5,
        curie_temperature_K=900.0,
        model=model or FokkerPlanck(),
    )


def vcma(*, model: SwitchingModel | None = None) -> VoltageControlledMTJ:
    """The junction `consistent` with voltage control of its anisotropy: 14.5 % less at 1 V, and as much more at -1 V.

    33 fJ/(V m) is the least of three coefficients that a public SPICE model of such junctions offers, with a barrier of
    1.15 nm. Source: github.com/sosapio/Spintronic-Pattern-Recognition (VCMA_STT_independent), after the model of the
    University of Minnesota.
    """
    junction = consistent(model=model)
    k = anisotropy_per_V(
        coefficient_J_per_V_m=33e-15,
        diameter_m=40e-9,
        barrier_thickness_m=1.15e-9,
        energy_barrier_J=float(junction.energy_barrier_J),
    )
    return VoltageControlledMTJ(**vars(junction), anisotropy_per_V=k)


def paper(*, model: SwitchingModel | None = None) -> MTJ:
    """The in-plane junction of arXiv 1912.12636, as RECALLED: its constants are not verified and do not agree.

    Recalled: θ0 = 0.02 rad, R_on 1.5 kΩ, R_off 2.5 kΩ, α = 0.01, μ0 Ms = 0.5 T, pulses of 1 V and 2 ns. θ0 = 1/√(2Δ)
    makes Δ = 1250, far above the 40 to 80 of real junctions. The critical current is not known: 61 µA is such that
    the full pulse switches a parallel junction with a probability of 0.99. No dependence of TMR on the voltage is
    known: V_h is out of reach. Its law is `Erf`; another one means a junction that the paper does not have.
    """
    return MTJ(
        energy_barrier_J=1250 * BOLTZMANN_J_PER_K * ROOM_TEMPERATURE_K,
        critical_current_A=61e-6,
        damping=0.01,
        anisotropy_field_T=0.5 / 2,
        parallel_resistance_ohm=1.5e3,
        tmr=2.5 / 1.5 - 1,
        tmr_half_voltage_V=1e6,
        model=model or Erf(),
    )


def ut_austin(*, model: SwitchingModel | None = None) -> MTJ:
    """A perpendicular junction of 50 nm for random numbers, with a low barrier: Δ = 20 at 300 K.

    Ms = 1.2e6 A/m, Ki = 1.0056e-3 J/m², 1.1 nm thick, α = 0.03, η = 0.3, TMR 150 %, R_P = 5 kΩ, V_h = 0.5 V and the
    demagnetising factors are those of the source; barrier and field follow from E_b/volume = Ki/thickness -
    μ0 Ms² (Nz - Nx)/2 and μ0 Hk = 2 E_b/(Ms volume). With Nz = 1, the film's, Δ would be 5.

    Source: github.com/JaredArz/Stochastic_MTJ_Model.
    """
    magnetisation_A_per_m, thickness_m, demagnetisation = 1.2e6, 1.1e-9, 0.978773644214052 - 0.010613177892974
    density_J_per_m3 = (
        1.0056e-3 / thickness_m - VACUUM_PERMEABILITY_T_M_PER_A * magnetisation_A_per_m**2 * demagnetisation / 2
    )
    energy_barrier_J = density_J_per_m3 * thickness_m * math.pi * 25e-9**2
    return MTJ(
        energy_barrier_J=energy_barrier_J,
        critical_current_A=perpendicular_critical_current_A(
            energy_barrier_J=energy_barrier_J, damping=0.03, spin_efficiency=0.3
        ),
        damping=0.03,
        anisotropy_field_T=2 * density_J_per_m3 / magnetisation_A_per_m,
        parallel_resistance_ohm=5e3,
        tmr=1.5,
        tmr_half_voltage_V=0.5,
        model=model or FokkerPlanck(),
    )


def sot() -> MeasuredDevice:
    """A junction switched by spin-orbit torque with pulses of 0.75 ns, from the fit of its measurement.

    P = 1/(1 + e^(-44.6 (V - 0.894))) with V in volts, taken at 46 voltages, in both directions; R_P = 4.9 kΩ, TMR
    100 %. The voltage is that across the write line; the resistances are those of the junction, in the read path.

    Source: github.com/JinChengZ18/smtj_pbnn_sim.
    """
    voltage_V = torch.linspace(0.669, 1.119, 46, dtype=torch.float64)
    table = MeasuredTable(
        voltage_V=voltage_V,
        pulse_width_s=torch.tensor([0.75e-9], dtype=torch.float64),
        probability=torch.sigmoid(44.6 * (voltage_V - 0.894))[:, None],
    )
    return MeasuredDevice(
        to_antiparallel=table, to_parallel=table, parallel_resistance_ohm=4.9e3, antiparallel_resistance_ohm=9.8e3
    )

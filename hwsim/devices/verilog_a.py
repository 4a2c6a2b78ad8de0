"""A junction as a compact model in Verilog-A, for simulators of circuits."""

from string import Template

from hwsim.devices.base import DeviceModel
from hwsim.devices.constants import BOLTZMANN_J_PER_K, GYROMAGNETIC_RATIO_RAD_PER_S_T

_TEXT = Template("""\
// A magnetic tunnel junction that switches at random: $source.
//
// A positive V(a, b) drives it from parallel to antiparallel. Of many junctions, and of many pulses on one, the share u
// switches earlier than this instance does: to draw junctions, make u uniform in 0..1. From thermal equilibrium the
// share that has switched is P = exp(-thc^2 delta (i - 1)/(i e^x - 1)), the closed form of Butler et al., IEEE Trans.
// Magn. 48, 4684 (2012) with the angle thc of the noise-free way to the equator; i is the overdrive, and x grows with
// the time as 2 (i - 1)/time_unit and falls back below the critical current. It holds for an overdrive of 2 or more,
// within 0.025 for delta of 30 or more; below the critical current it never switches, while a real junction does so
// by thermal activation.
`include "disciplines.vams"

module $name(a, b);
    inout a, b;
    electrical a, b;
    electrical angle;  // x
    electrical state;  // -1 parallel, 1 antiparallel

    parameter real u = 0.5 from (0:1);
    parameter integer antiparallel = 0 from [0:1];  // at the start
    parameter real settle_s = 4e-12 from (0:inf);  // in which the resistance changes; bounds the time step
    parameter real delta = $delta from (0:inf);  // barrier over kT, without voltage
    parameter real critical_current_A = $critical_current_A from (0:inf);  // out of parallel
    parameter real critical_current_ratio = $critical_current_ratio from (0:inf);  // out of antiparallel over that
    parameter real anisotropy_field_T = $anisotropy_field_T from (0:inf);
    parameter real damping = $damping from (0:inf);
    parameter real stray_field_T = $stray_field_T;  // positive towards antiparallel
    parameter real parallel_resistance_ohm = $parallel_resistance_ohm from (0:inf);
    parameter real tmr = $tmr from (0:inf);  // at low voltage
    parameter real tmr_half_voltage_V = $tmr_half_voltage_V from (0:inf);
    parameter real anisotropy_per_V = $anisotropy_per_V;  // by which a voltage lowers the anisotropy, a fraction

    real voltage, side, share, resistance, left, i, over, angle_2, decay, p, growth, wanted;

    analog begin
        voltage = V(a, b);
        side = V(state) < 0 ? -1 : 1;
        share = (1 + side)/2;
        resistance = parallel_resistance_ohm*(1 + share*tmr/(1 + pow(voltage/tmr_half_voltage_V, 2)));

        left = max(1 - anisotropy_per_V*voltage, 1e-3);
        i = -side*(voltage/(resistance*critical_current_A*left*(1 + share*(critical_current_ratio - 1)))
            + stray_field_T/(anisotropy_field_T*left));
        over = max(i, 1 + 1e-6);
        angle_2 = exp(ln(2) + ((over - 1)*ln(2) + 2*ln((over - 1)/over))/(over + 1));
        decay = exp(-max(V(angle), 0));
        p = i > 1 ? exp(-angle_2*delta*left*(over - 1)*decay/(over - decay)) : 0;

        growth = 2*(i - 1)*damping*$gyromagnetic*anisotropy_field_T*left/(1 + damping*damping);
        growth = i > 1 ? growth : growth*tanh(V(angle)/0.1);
        wanted = p < u ? side : -side;
        if (analysis("static")) begin
            growth = -1e9*V(angle);
            wanted = 2*antiparallel - 1;
        end
        I(angle) <+ 1e-9*(ddt(V(angle)) - growth);
        I(state) <+ ddt(settle_s*V(state)) + V(state) - wanted;
        $$bound_step(settle_s/4);
        I(a, b) <+ voltage/resistance;
    end
endmodule
""")


def verilog_a(device: DeviceModel, *, name: str = "mtj", source: str = "by hwsim") -> str:
    """A Verilog-A module that switches like a junction, in the closed form of `butler.Butler`.

    Its terminals are `a` and `b`; a positive voltage between them drives from parallel to antiparallel. The state is an
    internal node, so that the module takes no events and no random numbers: `u`, a parameter, is the share of junctions
    that switch earlier, and a simulator that varies it from instance to instance draws junctions. The constants are
    parameters by their names, at the junction's temperature.

    Args:
        device: an `MTJ`, with or without control by voltage; one value for each constant.
        name: of the module, an identifier.
        source: of the constants, a line.

    Raises:
        ValueError: the device has no physical constants, or the name is no identifier.
    """
    if not (name.isidentifier() and name.isascii()):
        raise ValueError(f"the name of a module has letters, digits and _, and begins with no digit, got {name!r}")
    barrier_J, temperature_K = (float(device.constant(part)) for part in ("energy_barrier_J", "temperature_K"))
    constants = {part: repr(float(device.constant(part))) for part in device.constants}
    return _TEXT.substitute(
        {"anisotropy_per_V": "0.0"} | constants,
        name=name,
        source=" ".join(source.split()),
        delta=repr(barrier_J / (BOLTZMANN_J_PER_K * temperature_K)),
        gyromagnetic=repr(GYROMAGNETIC_RATIO_RAD_PER_S_T),
    )

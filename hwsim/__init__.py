"""Simulated magnetic tunnel junctions as the weights of a network.

Begin with `hwsim.store.DeviceStore`, which takes the place of a `bnn.weights.DiscreteStore`. The physics of one
junction is in `hwsim.devices`; docs/hwsim.md tells the rest. Modules are imported by their
own names, such as `from hwsim.store import DeviceStore`, so that the command line answers before torch is loaded.
"""

"""Physics of magnetic tunnel junctions, in SI units and torch alone.

A `base.DeviceModel` is a junction, or an array of them: its resistance and how it switches. An `mtj.MTJ` is one of
physical constants, whose `base.SwitchingModel` gives the law in reduced units; a `measured.MeasuredDevice` is one of a
measured table. `junctions` has some by name. Every module here is found by what it defines, see `named`.
"""

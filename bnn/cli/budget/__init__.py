"""`bnn budget`: the memory of a training step, by the published model (`paper`) or of this package (`exact`)."""

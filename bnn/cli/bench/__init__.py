"""`bnn bench`: how quickly a trained network answers here."""

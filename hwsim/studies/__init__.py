"""Studies: what comes of a pulse, and of a training, where one quantity is swept; tables and figures of it.

`physics` computes, `accuracy` trains, `figures` draws. A table is a dict of columns of the same length.
"""

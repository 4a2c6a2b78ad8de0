"""The torture: trials that try to lose what a run has, to hang it, to crash it, or to get a file's code executed.

    python -m benchmarks.torture [--short | --long] [--only kills,flips] [--seed 0] [--trials N] [--markdown FILE]

A trial is drawn from its seed, takes place in an empty folder, and passes or breaks with one line, which says how to
repeat it. One kind of trial a file; docs/reliability.md says what each of them holds the package to.
"""

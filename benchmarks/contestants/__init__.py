"""The same networks and the same training step, built by each of the libraries that are measured side by side.

Each contestant is a module that runs in a process of its own: `python -m benchmarks.contestants.<name> TASK`, where
TASK is a `measure.Task` as JSON. It prints its figures as one line of JSON.
"""

"""Measurements that are run by hand, each as `python -m benchmarks.<name>`."""

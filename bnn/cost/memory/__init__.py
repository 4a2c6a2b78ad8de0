"""The memory of a training step: published, predicted on shapes alone, and measured."""

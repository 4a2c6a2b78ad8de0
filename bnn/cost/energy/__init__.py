"""The energy of training: counts of what hardware does, and price tables that turn them into joules."""

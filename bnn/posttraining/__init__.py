"""What becomes of a network that has been trained: fewer bits, fewer channels, and figures that explain it."""

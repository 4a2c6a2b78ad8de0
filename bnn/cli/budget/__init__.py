"""What `bnn budget` does, once its words are understood."""

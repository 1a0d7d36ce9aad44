"""One run and its folder, from a configuration to a velocity model."""

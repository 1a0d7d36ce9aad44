"""What keeps updates smooth and models plausible: changes of variables, bounds, regularisation."""

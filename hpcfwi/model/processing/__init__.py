"""Processing of gathers: what happens to predicted and observed ones before the misfit compares them."""

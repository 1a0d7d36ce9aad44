"""Shots as Dask tasks: each is computed, elsewhere if need be, and the results are added up."""

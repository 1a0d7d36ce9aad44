"""Dask workers: local processes, jobs of a batch system, or processes on the nodes of an allocation."""

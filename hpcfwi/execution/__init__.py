"""Execution of shots as Dask tasks, with retries on other workers, and the sum of their results."""

"""Inversion: misfit and gradient of a survey, their check, and the optimiser with its journal."""

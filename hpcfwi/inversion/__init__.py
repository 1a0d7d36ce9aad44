"""Inversion: misfit and gradient of a survey, their check, and optimisers with their journal."""

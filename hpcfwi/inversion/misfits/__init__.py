"""Misfits between predicted and observed gathers, each with its adjoint source."""

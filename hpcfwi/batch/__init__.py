"""Batch systems: one module for each, with all its commands, variables and terms."""

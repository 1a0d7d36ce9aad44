"""Batch systems: one module for each, with all the commands, variables and words that are its own."""

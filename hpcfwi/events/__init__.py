"""The record of a run: typed events, their log, the state derived from them, and the driver's lease."""

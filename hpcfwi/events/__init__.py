"""What a run records: typed events, the log that keeps them, the state they amount to, and the driver's lease."""

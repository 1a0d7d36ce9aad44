"""Optimisers: L-BFGS-B on all shots, and Adam and L-BFGS on batches of shots; their batches and stopping criteria."""

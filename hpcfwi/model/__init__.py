"""The problem as numbers: grid, survey, wavelet, velocity models and observed data, and the checks on them."""

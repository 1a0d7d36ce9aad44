"""Wave equations in Devito: operators, the wavefields that they work on, and engines that compute shots with them."""

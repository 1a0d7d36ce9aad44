"""The optimisers by their names."""

from hpcfwi.inversion.optimizers.adam import Adam
from hpcfwi.inversion.optimizers.base import Optimizer
from hpcfwi.inversion.optimizers.lbfgs import Lbfgs
from hpcfwi.inversion.optimizers.lbfgs_batch import BatchLbfgs

# Optimisers by their names in ``inversion.optimizer``.
OPTIMIZERS: dict[str, Optimizer] = {"lbfgs": Lbfgs(), "adam": Adam(), "lbfgs-batch": BatchLbfgs()}

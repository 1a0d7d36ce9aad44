"""dask-jobqueue, without the handlers of SIGINT and SIGTERM that its import sets (its ``runner`` module, in 0.9.0)."""

from hpcfwi.interrupts import undisturbed

with undisturbed():
    from dask_jobqueue import PBSCluster, SLURMCluster
    from dask_jobqueue.core import Job, JobQueueCluster
    from dask_jobqueue.pbs import PBSJob
    from dask_jobqueue.slurm import SLURMJob

__all__ = ["Job", "JobQueueCluster", "PBSCluster", "PBSJob", "SLURMCluster", "SLURMJob"]

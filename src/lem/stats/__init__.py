"""Statistics: every mean comes with an interval, every comparison is paired per probe.

The order is always the same: average the repeats of a probe, then take one value (or one paired
difference) per probe, average those of the variants of one source, then estimate over (source) probes.
`Estimate` is the only return type. The headline interval is the wider of the BCa bootstrap over probes and the
cluster-robust (CR2) t interval over domains, because each of the two alone covers less than it claims on some
shapes of data (skewed, clustered).
"""

from lem.stats.estimate import Estimate, cluster_t_interval, headline, mean_bca, rate
from lem.stats.paired import PairedComparison, paired_difference, per_probe, per_source, source_domains

__all__ = [
    "Estimate",
    "PairedComparison",
    "cluster_t_interval",
    "headline",
    "mean_bca",
    "paired_difference",
    "per_probe",
    "per_source",
    "rate",
    "source_domains",
]

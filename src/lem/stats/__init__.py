"""Statistics: every mean comes with an interval, every comparison is paired per probe.

The order is always the same: average the repeats of a probe, then take one value (or one paired
difference) per probe, average those of the variants of one source, then estimate over (source) probes.
An `Estimate` has a value and an interval, a `PValue` a test of no difference, a `MarginTest` a test against a margin
fixed beforehand. The headline interval spans the t, BCa and bootstrap-t intervals over probes and the
cluster-robust (CR2) t interval over domains, because each alone covers less than it claims on some shapes of data.
Values that are missing never enter: NaN is refused with a ValueError.
"""

from lem.stats.agreement import FEWEST_UNITS, krippendorff_alpha, weighted_kappa
from lem.stats.binary import mcnemar
from lem.stats.clusters import cluster_bootstrap, cluster_t_test, design_effect
from lem.stats.corrected import CorrectedRate, corrected_rate
from lem.stats.estimate import Estimate, bootstrap_t, cluster_freedom, cluster_t_interval, mean_bca, rate, t_interval
from lem.stats.headline import headline, headline_tail
from lem.stats.hypotheses import PValue, sign_flip, wilcoxon_signed_rank
from lem.stats.length import LengthControlled, length_controlled
from lem.stats.margins import MarginTest, equivalent, non_inferior
from lem.stats.multiplicity import benjamini_hochberg, holm
from lem.stats.ordinal import cliffs_delta
from lem.stats.paired import PairedComparison, paired_difference, per_probe, per_source, source_domains
from lem.stats.power import detectable_effect, minimum_detectable_effect, power_of, probes_needed
from lem.stats.repeats import NoiseComponents, fixed_set_difference, noise_components, sd_of_difference
from lem.stats.scale import keep_on_scale, mean_on_scale

__all__ = [
    "FEWEST_UNITS",
    "CorrectedRate",
    "Estimate",
    "LengthControlled",
    "MarginTest",
    "NoiseComponents",
    "PValue",
    "PairedComparison",
    "benjamini_hochberg",
    "bootstrap_t",
    "cliffs_delta",
    "cluster_bootstrap",
    "cluster_freedom",
    "cluster_t_interval",
    "cluster_t_test",
    "corrected_rate",
    "design_effect",
    "detectable_effect",
    "equivalent",
    "fixed_set_difference",
    "headline",
    "headline_tail",
    "holm",
    "keep_on_scale",
    "krippendorff_alpha",
    "length_controlled",
    "mcnemar",
    "mean_bca",
    "mean_on_scale",
    "minimum_detectable_effect",
    "noise_components",
    "non_inferior",
    "paired_difference",
    "per_probe",
    "per_source",
    "power_of",
    "probes_needed",
    "rate",
    "sd_of_difference",
    "sign_flip",
    "source_domains",
    "t_interval",
    "weighted_kappa",
    "wilcoxon_signed_rank",
]

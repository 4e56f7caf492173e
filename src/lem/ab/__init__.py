"""A/B runs: arms (base, kernels, placebos, adapters, trained models) over the same probes with the same seeds."""

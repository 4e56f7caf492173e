"""Runs: the one resumable executor between a plan of requests and the records on disk.

A/B runs, benchmarks, distillation, local judging and red-team runs all go through `execute`; what differs is
how they build their requests.
"""

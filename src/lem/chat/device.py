"""What this machine computes with: MLX device, BLAS, threads, memory. All of it goes into `run.json`."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any


def describe_device() -> dict[str, Any]:
    """Name the MLX device, the BLAS in use, the threads it may use and the machine."""
    import mlx.core as mx

    device = "gpu" if mx.default_device() == mx.gpu else "cpu"
    facts: dict[str, Any] = {"device": device, "machine": platform.machine(), "system": platform.system()}
    if device == "gpu":
        facts["name"] = str(mx.device_info().get("device_name", "unknown"))
    facts["blas"] = blas_in_use()
    facts["blas_threads"] = os.environ.get("OPENBLAS_NUM_THREADS") or "default"
    facts["cores"] = os.cpu_count()
    return facts


def blas_in_use() -> str:
    """Which BLAS the process has loaded: OpenBLAS (preloaded), Accelerate on macOS, else MLX's bundled reference."""
    if sys.platform == "darwin":
        return "Accelerate"
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    return "OpenBLAS" if "libopenblas" in maps else "bundled reference BLAS (slow)"


def free_memory_bytes() -> int:
    """Memory that a run may plan with: free RAM on the CPU, the recommended working set on Metal."""
    import mlx.core as mx

    if mx.default_device() == mx.gpu:
        size = mx.device_info().get("max_recommended_working_set_size", 0)
        return int(size) - int(mx.get_active_memory())
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def on_metal() -> bool:
    """Whether MLX computes on an Apple GPU, where the system may end a process that keeps the display waiting."""
    import mlx.core as mx

    return bool(mx.metal.is_available()) and mx.default_device() != mx.cpu

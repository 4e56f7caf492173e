"""Data: kernels, probes, chat examples, and the checks that keep evaluation probes out of training.

Everything here reads and validates files; nothing imports MLX. A malformed file is a `DataError` that names
the file, the place and the field.
"""

from lem.data.chat_examples import ChatExample, read_chat_examples
from lem.data.kernels import Kernel, read_kernel
from lem.data.probes import Probe, read_probes

__all__ = ["ChatExample", "Kernel", "Probe", "read_chat_examples", "read_kernel", "read_probes"]

"""Libraries of other tools, imported when they are needed; a missing one is a sentence with its remedy."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from lem.errors import UserError


def load_library(module: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:  purpose: what needs it, as the sentence opens.
    Raises: UserError if the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        name = package.replace("_", "-")
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UserError(
            f"{purpose} needs the package {name}, which is not installed; get it with "
            f"`{sys.executable} -m pip install {name}`."
        ) from None

"""The modules of scripts/nano are imported as the build script imports them."""

import sys

from lem.paths import repository_root

sys.path.insert(0, str(repository_root() / "scripts"))

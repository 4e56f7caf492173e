"""Who answers under a judge's name, looked at before its verdict is stored, and what a pass cost beyond its verdicts.

A service is asked by one name and says with each reply which model answered. Kinship is looked for under that name,
too, and a server of this machine, which gives any model the name that it was started with, may not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from lem.errors import UserError
from lem.judges.backends.access import is_local
from lem.judges.lineage import LOCAL
from lem.judges.manifest import asked_lines, check_pedigree, reported_models
from lem.judges.protocol import Call, Judge, Reply
from lem.records import RunInfo

# Sums of the same amounts in another order differ by less than this; a token costs more.
_ROUNDING = 1e-9


class WrongJudge(UserError):
    """The model that answers may not judge here; the same command would not go on."""


class Answering:
    """A judge over one run whose models are watched: itself a judge, for a pass to ask.

    `pedigree` is what is known so far; `on_kin` is called when a reply has added kin to it, before it is stored.
    """

    def __init__(self, run: Path, judge: Judge, info: RunInfo, *, allow_self_judge: bool) -> None:
        """Raises: UserError for a judge of one lineage with an arm, by its name or by those that it answered under."""
        self.identity = judge.identity
        self.on_kin: Callable[[], object] = lambda: None
        self._run, self._judge, self._info, self._allowed = run, judge, info, allow_self_judge
        self._models = reported_models(run, judge.identity.name)
        self.pedigree = check_pedigree(
            judge.identity, info, allow_self_judge=allow_self_judge, reported=self._models
        )  # fmt: skip
        self._before = 0.0

    def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Iterator[Reply]:
        """Yield what the judge says.

        Raises: WrongJudge, before a reply of another model than the one before on a server of this machine, and after
        the first reply of a model that is kin of an arm, unless that is allowed.
        """
        found: Any = self._judge.replies(calls, wanted)
        with closing(found):
            for reply in found:
                refusal = self._look(reply.model)
                yield reply  # paid for, and kept under its mark
                if refusal is not None:
                    raise refusal

    def _look(self, model: str) -> WrongJudge | None:
        if not model or model in self._models or self.identity.backend == LOCAL:
            return None
        service = str(self.identity.settings.get("service", ""))
        if self._models and is_local(service):
            raise WrongJudge(
                f"the judge '{self.identity.name}' answered as {', '.join(self._models)} so far, and {service} now "
                f"answers as {model}; serve that model again, or, where it is gone, judge anew under another name with "
                "--judge NAME=..., nothing of the other model was kept."
            )
        self._models = [*self._models, model]
        known = {kin.arm for kin in self.pedigree.kin}
        found = check_pedigree(self.identity, self._info, allow_self_judge=True, reported=self._models)
        self.pedigree = replace(found, refused=not self._allowed)
        new = next((kin for kin in found.kin if kin.arm not in known), None)
        if new is None:
            return None
        self.on_kin()
        if self._allowed:
            return None
        return WrongJudge(
            f"the judge '{self.identity.name}' answers as {model}, of one lineage with arm '{new.arm}' "
            f"({new.why.rstrip('.')}), and models rate their own kind too well; what it said is on disk, marked as "
            "self-judged; take another --judge, or --allow-self-judge."
        )

    def begin(self) -> None:
        """Note what was spent before the first call of this pass."""
        self._before = self._beyond_verdicts()

    def cut_off(self) -> float:
        """The most that calls of this pass may have cost of which no verdict is on disk, because it ended first."""
        cost = self._beyond_verdicts() - self._before
        return cost if cost > _ROUNDING else 0.0

    def _beyond_verdicts(self) -> float:
        on_disk = sum(line.cost or 0.0 for line in asked_lines(self._run, self.identity.name))
        return float(getattr(self._judge, "committed", 0.0)) - on_disk

"""A small run in memory with everything an export has to carry: repeats, a kernel, thinking, failures, gaps, judges."""

from __future__ import annotations

from lem.records import Judgement, Record, RunContents, RunInfo, Score, text_sha

PROBES = [
    {"id": "P01", "domain": "commons", "prompt": "Who owns the well?"},
    {"id": "P02", "domain": "privacy", "prompt": "May I read — her letter? 🔒"},
    {"id": "P03", "domain": "privacy", "prompt": "And his?"},
]
SETTINGS = {"max_tokens": 64, "temperature": 0.7, "top_p": 0.95, "seed": 7, "repeats": 2}
KERNEL = {"role": "system", "content": "Be kind."}


def make_record(arm: str, probe: dict[str, str], repeat: int, **more: object) -> Record:
    user = {"role": "user", "content": probe["prompt"]}
    return Record(
        "first",
        arm,
        probe["id"],
        repeat,
        **{
            "response": f"{arm} on {probe['id']}, time {repeat}",
            "messages": (KERNEL, user) if arm == "txt" else (user,),
            "finish_reason": "stop",
            "n_prompt_tokens": 12,
            "n_tokens": 30 + repeat,
            "ts": f"2025-03-01T10:00:0{repeat}.000+00:00",
            **more,
        },
    )


def make_contents() -> RunContents:
    """Arms base and txt, three probes, two repeats; txt/P03/1 is missing, base/P03/0 failed, base/P02/1 is cut."""
    info = RunInfo("first", "benchmark", status="incomplete", settings=dict(SETTINGS), probes=PROBES)
    info.arms = {"base": {"model": "models/lem-nano"}, "txt": {"model": "models/lem-nano", "kernel": "lek-1"}}
    records = [make_record(arm, probe, repeat) for arm in info.arms for probe in PROBES for repeat in (0, 1)]
    change = {
        ("base", "P03", 0): {"response": None, "error": "out of memory", "finish_reason": None, "n_tokens": None},
        ("base", "P02", 1): {"finish_reason": "length"},
        ("txt", "P01", 0): {"thinking": "The well is shared.", "response": ""},
    }
    records = [
        make_record(r.arm, PROBES[int(r.probe_id[1:]) - 1], r.repeat, **change.get(r.key, {}))
        for r in records
        if r.key != ("txt", "P03", 1)
    ]
    answered = [record for record in records if record.response is not None]
    scores = [
        Score(*r.key, "v2", "v2.0", float(i) - 0.25, {"nuance": 1.0}, record_sha=text_sha(r.response))
        for i, r in enumerate(answered)
    ]
    v3 = [Score(*r.key, "v3", "v3.1", i % 2 * 1.0, {}, record_sha=text_sha(r.response)) for i, r in enumerate(answered)]
    v3[2] = Score(*answered[2].key, "v3", "v3.1", None, {}, "not in English", text_sha(answered[2].response))
    judgements = [
        Judgement(
            *r.key, "gemini", "truth", 1.0 + i % 5, raw=f"because {i}", low=1, high=5, version="j1",
            record_sha=text_sha(r.response), ts="2025-03-01T11:00:00.000+00:00",
        )
        for i, r in enumerate(answered)
    ]  # fmt: skip
    last = answered[-1]
    judgements[-1] = Judgement(
        *last.key, "gemini", "truth", None, unscored="no verdict", low=1, high=5, version="j1",
        record_sha=text_sha(last.response), ts="2025-03-01T11:00:00.000+00:00",
    )  # fmt: skip
    return RunContents(info, records, {"v2": scores, "v3": v3}, judgements)

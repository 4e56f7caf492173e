"""Judges: models that rate or compare answers, and how far they can be trusted.

    answers of a run -> calls (rubric, fenced text) -> a judge's replies -> verdicts parsed strictly -> judgements

A failure is never a value: what cannot be parsed, was blocked, cut off or refused is unscored with the reason, what
could not be asked has an error. Every reply is kept as it came.

    here         protocol, rubrics, prompt, parse; the passes (calls, grade, conduct) and their manifests; lineage;
                 panels; people's labels
    backends/    gemini, openai, local
    pairwise/    comparisons of two arms and win rates
    audit/       canaries, measures, verdict on the judge
"""

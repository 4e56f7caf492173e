"""lem-nano's corpus: rows of chat grown from the hand-written text, the same for the same seed.

Row kinds: practice (say my words back), frames (a question frame answered by sentence frames that share its
fillers), loose (a question of unseen shape, answered with phrases lifted from it), passage (hand-written), and
each of them may carry an unrelated system prompt, an earlier turn, or a long answer in paragraphs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from . import grammar
from .grammar import Fillers, Phrases
from .texts import Texts

ORDER = ("open", "see", "image", "other", "tension", "honest", "step", "ask", "close")
_LIFTABLE = re.compile(r"\{(thing|matter|noun)\}")
_SENTENCE = re.compile(r"(?<=[.?!])\s+")


@dataclass(frozen=True)
class Row:
    """One chat: messages in order; `kind` says how it was made."""

    kind: str
    messages: tuple[tuple[str, str], ...]


class Writer:
    """Makes rows from texts; all randomness comes from the generator handed to each call."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        lexicon = texts.lexicon
        self.nouns = frozenset(lexicon["noun"]) | frozenset(texts.words.get("noun", ()))
        self.verbs = frozenset(lexicon["verb"]) - self.nouns
        self.classes = {
            word: kind for kind in ("adverb", "verb", "adjective", "noun") for word in lexicon[kind] if len(word) > 3
        }
        self.by_role: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for role, kinds, frame in texts.sentences:
            self.by_role.setdefault(role, []).append((kinds, frame))
        self.span_by_role: dict[str, list[str]] = {}
        for role, frame in texts.spans:
            self.span_by_role.setdefault(role, []).append(frame)
        self.question_lines = [line for _, frame in texts.questions for line in _SENTENCE.split(frame)]
        self.human_questions = [s for p in texts.passages for s in _SENTENCE.split(p.question)]
        self.human_lines = [s for p in texts.passages for s in _SENTENCE.split(p.answer)]
        self.human_lines += [s for t in texts.systems for s in _SENTENCE.split(t.replace("\n", " "))]
        self.human_lines = [s for s in self.human_lines if 4 <= len(s.split()) <= 30]
        paragraphs = [p.strip() for t in texts.systems for p in t.split("\n\n")] + [p.answer for p in texts.passages]
        self.notices = [p for p in paragraphs if 30 <= len(p.split()) <= 150 and p[0] not in "{[#|"]
        self.extra = sorted({word for words in texts.words.values() for word in words})

    # questions

    def mutate(self, text: str, rng: Random, share: float) -> str:
        """The text with a share of its plain nouns, adjectives, verbs and adverbs swapped for others."""

        def swap(match: re.Match[str]) -> str:
            kind = self.classes.get(match[0])
            if kind is None or rng.random() > (share if kind != "verb" else share / 2):
                return match[0]
            return str(rng.choice(self.texts.lexicon[kind]))

        return grammar.tidy(re.sub(r"(?<![A-Za-z'])[a-z][a-z'-]+", swap, text))

    def enrich(self, frame: str, rng: Random) -> str:
        """Sometimes puts an adjective before a slot or 'of the {noun}' behind it, to make odd phrases."""

        def one(match: re.Match[str]) -> str:
            draw = rng.random()
            if match[1] in ("thing", "person", "place", "people") and draw < 0.16:
                return "{adjective" + str(rng.choice(("", ".2", ".3"))) + "} " + match[0]
            if match[1] in ("thing", "matter", "place") and draw < 0.26:
                return match[0] + " of the {noun" + str(rng.choice((".7", ".8", ".9"))) + "}"
            return match[0]

        return grammar.SLOT.sub(one, frame)

    def loose_question(self, rng: Random) -> str:
        """One to four sentences from different hands, words swapped: a question of unseen shape."""
        count = rng.choice((1, 1, 2, 2, 2, 3, 3, 4))
        fillers = Fillers()
        lines = []
        for _ in range(count):
            draw = rng.random()
            if draw < 0.4:
                line = grammar.fill(self.enrich(rng.choice(self.question_lines), rng), self.texts.lexicon, fillers, rng)
                if rng.random() < 0.35:
                    fillers = Fillers()
                if rng.random() < 0.3:
                    line = self.mutate(line, rng, 0.3)
            elif draw < 0.72:
                line = self.mutate(rng.choice(self.human_questions), rng, rng.choice((0.0, 0.3, 0.6)))
            else:
                line = self.mutate(rng.choice(self.human_lines), rng, rng.choice((0.3, 0.6)))
                if rng.random() < 0.25:
                    line = f'{rng.choice(("I was told:", "A note says:", "Somebody wrote:", "I read this:"))} "{line}"'
            lines.append(line)
        if len(" ".join(lines).split()) < 7:
            lines.append(self.mutate(rng.choice(self.human_lines), rng, 0.4))
        return grammar.tidy(" ".join(lines))

    # answers

    def plain(self, role: str, kind: str, fillers: Fillers, rng: Random) -> str:
        """A sentence frame of the role, preferring one whose slots the question has filled."""
        frames = [frame for kinds, frame in self.by_role[role] if "*" in kinds or kind in kinds]
        for _ in range(12):
            frame = rng.choice(frames)
            slots = {m[1] + m[2] for m in grammar.SLOT.finditer(frame)}
            if slots <= set(fillers.chosen) or rng.random() < 0.08:
                break
        local = Fillers(dict(fillers.chosen))
        return grammar.fill(frame, self.texts.lexicon, local, rng)

    def lifted(self, role: str, source: Phrases, used: set[str], rng: Random) -> str | None:
        """A sentence that quotes the question, from a span frame or from a sentence frame with liftable slots."""
        if rng.random() < 0.7:
            return grammar.lift(rng.choice(self.span_by_role[role]), source, rng, used)
        frame = rng.choice([frame for _, frame in self.by_role[role] if _only_liftable(frame)])
        definite = [noun for noun in source.nouns if noun.split()[0] in ("the", "your", "this")]
        bare = tuple(dict.fromkeys(re.sub(r"^\w+ ", "", noun) for noun in definite))
        frame = _LIFTABLE.sub(lambda m: "{np}" if m[1] == "matter" else "{word}", frame)
        frame = frame.replace("the {word}", "the {quote}")
        return grammar.lift(frame, Phrases(source.nouns, source.words, bare or source.words), rng, used)

    def answer(self, question: str, kind: str, fillers: Fillers | None, rng: Random, size: int) -> str:
        """`size` sentences in a sensible order; loose questions get lifted phrases, frames mostly shared fillers."""
        source = grammar.phrases(question, self.verbs, self.nouns)
        used: set[str] = set()
        middle = [rng.choice(ORDER[1:-1]) for _ in range(max(0, size - 2))]
        roles = ["open", *sorted(middle, key=ORDER.index), "close"] if size > 1 else ["open"]
        sentences: list[str] = []
        share = 0.9 if fillers is None else 0.4
        for role in roles:
            text = self.lifted(role, source, used, rng) if rng.random() < share else None
            if text is None and fillers is not None:
                text = self.plain(role, kind, fillers, rng)
            if text is None:
                text = self.slotless(role, rng)
            if text not in sentences:
                sentences.append(text)
        return grammar.tidy(_paragraphs(sentences, rng))

    def slotless(self, role: str, rng: Random) -> str:
        """A sentence frame without a question to lean on: slot-free, or with words of the wide lexicon."""
        frames = [frame for _, frame in self.by_role[role] if not re.search(r"\{(?!noun|adjective|adverb|verb)", frame)]
        return grammar.fill(rng.choice(frames), self.texts.lexicon, Fillers(), rng)

    # rows

    def practice(self, rng: Random) -> Row:
        """Saying the reader's words back: the shortest way to learn to look back."""
        ask, reply = rng.choice(self.texts.practice)
        lexicon = self.texts.lexicon
        pool = [*lexicon["noun"], *lexicon["adjective"], *lexicon["verb"], *lexicon["adverb"], *self.extra, *self.extra]
        words = rng.sample(pool, rng.choice((3, 5, 7, 9, 12, 20)))
        sentence = self.loose_line(rng)
        source = grammar.phrases(sentence, self.verbs, self.nouns)
        while len(source.nouns) < 2:
            sentence = self.loose_line(rng)
            source = grammar.phrases(sentence, self.verbs, self.nouns)
        nouns = rng.sample(source.nouns, 2)
        values = {
            "list": ", ".join(words),
            "plain": " ".join(words),
            "first": words[0],
            "last": words[-1],
            "sentence": sentence,
            "np1": nouns[0],
            "np2": nouns[1],
            "Np1": nouns[0][0].upper() + nouns[0][1:],
            "nplist": _join(source.nouns[:4]),
            "Nplist": _join(source.nouns[:4]).capitalize(),
        }
        return Row("practice", (("user", ask.format(**values)), ("assistant", reply.format(**values))))

    def loose_line(self, rng: Random) -> str:
        """One mutated sentence."""
        if rng.random() < 0.5:
            return self.mutate(rng.choice(self.human_lines), rng, 0.6)
        line = grammar.fill(self.enrich(rng.choice(self.question_lines), rng), self.texts.lexicon, Fillers(), rng)
        return grammar.tidy(line)

    def extra_line(self, rng: Random) -> str:
        """A short sentence that seats a few words of `words.txt`."""
        classes = list(self.texts.words)
        kind = rng.choices(classes, [len(self.texts.words[c]) for c in classes])[0]
        words = rng.sample(self.texts.words[kind], 3)
        return grammar.tidy(rng.choice(_EXTRA[kind]).format(*words))

    def exchange(self, rng: Random, long: bool) -> tuple[str, str, str]:
        """A (kind, question, answer): framed, loose or hand-written."""
        draw = rng.random()
        size = rng.randint(9, 13) if long else rng.choice((4, 5, 5, 6, 6, 7))
        if draw < 0.03 and not long:
            passage = rng.choice(self.texts.passages)
            return "passage", passage.question, passage.answer
        if draw < 0.08:
            return "notice", *self.notice(rng)
        if draw < 0.42:
            kind, frame = rng.choice(self.texts.questions)
            fillers = Fillers()
            question = grammar.tidy(grammar.fill(self.enrich(frame, rng), self.texts.lexicon, fillers, rng))
            return "frames", question, self.answer(question, kind, fillers, rng, size)
        question = self.loose_question(rng)
        if self.extra and rng.random() < 0.55:
            question += " " + self.extra_line(rng)
        return "loose", question, self.answer(question, "reflect", None, rng, size)

    def notice(self, rng: Random) -> tuple[str, str]:
        """A request for a text that mentions certain things, and a paragraph of ours that does."""
        while True:
            text = self.mutate(rng.choice(self.notices), rng, rng.choice((0.1, 0.3, 0.5)))
            nouns = grammar.phrases(text, self.verbs, self.nouns).nouns
            if len(nouns) >= 4:
                picked = rng.sample(nouns[:12], rng.randint(2, 4))
                return rng.choice(_NOTICE).format(_join(picked), picked[0], picked[1]), text

    def row(self, rng: Random, practice: float, system: float, longest: int) -> Row:
        """A row; `practice` and `system` are shares, `longest` caps a system prompt in characters."""
        if rng.random() < practice:
            return self.practice(rng)
        kind, question, answer = self.exchange(rng, rng.random() < 0.06)
        messages = [("user", question), ("assistant", answer)]
        if rng.random() < 0.03:
            _, before, reply = self.exchange(rng, False)
            messages = [("user", before), ("assistant", reply), *messages]
        if rng.random() < system:
            messages.insert(0, ("system", self.system(rng, longest)))
        return Row(kind, tuple(messages))

    def system(self, rng: Random, longest: int) -> str:
        """An unrelated system prompt: one line, some paragraphs, or pages of them, at times as JSON."""
        goal = int(rng.choice((120, 500, 1200, longest, longest)) * rng.uniform(0.6, 1.0))
        goal = min(goal, longest)
        parts: list[str] = []
        length = 0
        while length < goal:
            paragraph = rng.choice([p for p in rng.choice(self.texts.systems).split("\n\n") if p.strip()]).strip()
            paragraph = self.mutate(paragraph, rng, 0.15)[: max(60, goal - length)]
            parts.append(paragraph)
            length += len(paragraph) + 2
        if rng.random() < 0.3:
            return json.dumps(
                {
                    "name": rng.choice(self.texts.lexicon["thing"]),
                    "rules": [{"id": i, "text": p} for i, p in enumerate(parts)],
                },
                indent=rng.choice((None, 2)),
            )
        return "\n\n".join(parts)


_NOTICE = (
    "Please write a short text that mentions {0}.",
    "Write me a paragraph about {1} and {2}.",
    "I need a notice. It must speak of {0}.",
    "Could you describe {1}? Bring in {2} as well.",
    "Give me some plain prose in which {1} and {2} appear.",
    "What is written down about {0}?",
    "Tell me how things are done here, with {0} in mind.",
)
_EXTRA = {
    "other": (
        "Please think of {0} and {1} too.",
        "For me it has to do with {0} and {1}.",
        "There is {0} in it, and {1}.",
        "I would call it {0} or {1}; others say {2}.",
        "These words keep coming back: {0}, {1} and {2}.",
        "My notes say {0}, then {1}, and nothing else.",
        "It began with {0} and ended with {1}.",
        "Somebody shouted {0}; somebody else answered {1}.",
        "There was a {0} beside the {1}, and a {2} near the door.",
        "First came the {0}, then my {1}, and at last the {2}.",
    ),
    "plural": (
        "I counted the {0} and the {1} twice.",
        "It is about {0}, {1} and a few {2}.",
        "We have {0} and {1} but no {2}.",
        "She {0} and he {1}; nobody {2}.",
        "All the {0} and {1} are in the same box.",
    ),
    "past": (
        "Somebody {0} it, and somebody else {1} it again.",
        "We {0}, they {1}, and nothing changed.",
        "I was {0} at first and then {1}.",
        "It was {0}, {1} and finally {2}.",
    ),
    "gerund": (
        "It is the {0} and the {1} that wear me out.",
        "They were {0} and {1} all week.",
        "After so much {0} I am tired of {1}.",
        "He keeps {0} while she is {1}.",
    ),
    "adverb": ("It happened {0} and {1}.", "They spoke {0}, then {1}.", "I would do it {0}, or at least {1}."),
}


def _only_liftable(frame: str) -> bool:
    slots = [m[1] + m[2] for m in grammar.SLOT.finditer(frame)]
    return bool(slots) and all(slot in ("thing", "matter", "noun") for slot in slots)


def _join(items: tuple[str, ...] | list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _paragraphs(sentences: list[str], rng: Random) -> str:
    if len(sentences) < 5 or (rng.random() < 0.6 and len(sentences) < 8):
        return " ".join(sentences)
    cut = rng.randint(2, len(sentences) - 2)
    if len(sentences) < 9:
        return " ".join(sentences[:cut]) + "\n\n" + " ".join(sentences[cut:])
    third = len(sentences) // 3
    return "\n\n".join(" ".join(p) for p in (sentences[:third], sentences[third : 2 * third], sentences[2 * third :]))


PACE = 57_000  # rows over which the corpus changes character; what follows is like its second half


def rows(texts: Texts, seed: int, total: int) -> Iterator[Row]:
    """`total` rows in training order: practice first, longer system prompts from half of `PACE` rows on."""
    writer = Writer(texts)
    for index in range(total):
        rng = Random(f"{seed}/{index}")
        progress = index / PACE
        practice = 0.40 if progress < 0.04 else 0.08
        longest = 1500 if progress < 0.5 else 3000
        system = 0.0 if progress < 0.08 else 0.12
        if progress > 0.5 and rng.random() < 0.015:
            row = writer.row(rng, 0.0, 0.0, 0)
            yield Row(row.kind, (("system", writer.system(rng, rng.choice((6000, 9000, 11500)))), *row.messages))
            continue
        yield writer.row(rng, practice, system, longest)

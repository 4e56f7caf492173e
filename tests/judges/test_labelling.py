"""Who is shown what: shared answers for everybody, shares for every arm, blind and in an order of one's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from known_judges import known_folder, known_run
from lem.errors import UserError
from lem.judges.human import read_labels
from lem.judges.labelling import Labelling, pair_tasks, rating_tasks
from lem.judges.rubrics import read_rubric, rubrics_for
from lem.judges.sampling import stratified, usable_records
from lem.records import RunContents, Score

RUN = known_run(200)
RUBRICS = {"ethics": [read_rubric("ethical_depth")]}


def tasks_of(labeller: str, n: int = 20, seed: int = 1) -> list[tuple[object, ...]]:
    return [task.id for task in rating_tasks(RUN, {}, RUBRICS, n, seed, labeller)]


def test_three_in_ten_are_shared_from_the_start_on() -> None:
    ada, ben, eve = (tasks_of(name) for name in ("ada", "ben", "eve"))
    assert len(set(ada)) == 20
    common = set(ada) & set(ben) & set(eve)
    assert len(common) == 6
    for mine in (ada, ben, eve):
        places = [place for place, one in enumerate(mine) if one in common]
        assert places[0] == 0
        assert all(2 <= later - earlier <= 4 for earlier, later in pairwise(places))
    own = [set(mine) - common for mine in (ada, ben)]
    assert len(own[0] & own[1]) < 14, "the rest is each labeller's own choice"
    assert tasks_of("ada") == ada
    assert tasks_of("ada", seed=2) != ada


def test_every_arm_has_its_share_and_a_small_run_is_taken_whole() -> None:
    arms = Counter(one[0] for one in tasks_of("ada"))
    assert arms["base"] + arms["treated"] == 20
    assert abs(arms["base"] - arms["treated"]) <= 2
    whole = tasks_of("ada", n=10_000)
    assert len(whole) == len(set(whole)) == 400
    assert set(whole) == set(tasks_of("ben", n=10_000))


def test_all_scales_of_an_answer_follow_each_other() -> None:
    tasks = rating_tasks(known_run(), {}, {"ethics": rubrics_for("ethics")}, 5, 1, "ada")
    assert len(tasks) == 20
    assert [task.dimension for task in tasks[:4]] == [rubric.dimension for rubric in rubrics_for("ethics")]
    assert len({task.key for task in tasks[:4]}) == 1


def test_places_of_a_pair_are_drawn_for_each_labeller() -> None:
    ada = pair_tasks(known_run(), {}, "base", "treated", 24, 1, "ada")
    ben = pair_tasks(known_run(), {}, "base", "treated", 24, 1, "ben")
    orders = {task.key: task.order for task in ada}
    assert 6 <= Counter(orders.values())["ab"] <= 18
    assert any(orders[task.key] != task.order for task in ben)
    for task in ada:
        ours = task.answers[0 if task.order == "ab" else 1]
        assert "The treated account" in ours
        assert (task.key.arm, task.against) == ("treated", "base")


def test_equal_answers_and_blank_ones_are_not_shown() -> None:
    run = known_run(4)
    records = [
        type(one)(**{**one.__dict__, "response": "Same." if one.probe_id == "P00" else one.response})
        for one in run.records
    ]
    records = [
        type(one)(**{**one.__dict__, "response": " \n"}) if (one.arm, one.probe_id) == ("base", "P01") else one
        for one in records
    ]
    contents = RunContents(run.info, records)
    assert {task.key.probe_id for task in pair_tasks(contents, {}, "base", "treated", 9, 1, "ada")} == {"P02", "P03"}
    assert len(rating_tasks(contents, {}, RUBRICS, 99, 1, "ada")) == 7
    with pytest.raises(UserError, match="no arm 'other'"):
        pair_tasks(contents, {}, "base", "other", 9, 1, "ada")


def test_an_answer_that_no_scorer_could_score_is_not_usable() -> None:
    run = known_run(3, arms=("base",))
    scores = [
        Score("base", f"P0{i}", 0, "v2", "1", value, {}, None if value else "not English")
        for i, value in enumerate((1.0, None))
    ]
    contents = RunContents(run.info, run.records, {"v2": scores, "v3": [Score("base", "P01", 0, "v3", "1", None, {})]})
    assert [record.probe_id for record in usable_records(contents)] == ["P00", "P02"]


def test_a_larger_sample_holds_the_smaller_one() -> None:
    order = stratified(range(100), lambda unit: unit % 7, str, 3)
    assert sorted(order) == list(range(100))
    assert len({unit % 7 for unit in order[:7]}) == 7
    assert stratified(reversed(range(100)), lambda unit: unit % 7, str, 3) == order


def test_labels_are_on_disk_at_once_and_undoing_goes_back(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run")
    tasks = rating_tasks(known_run(), {}, RUBRICS, 4, 1, "ada")
    with Labelling(run, "ada", tasks) as work:
        assert work.undo() is False
        work.give(7.0)
        assert [label.value for label in read_labels(run)] == [7.0]
        work.skip()
        assert work.done == 2
        assert work.undo()
        assert work.undo()
        assert work.current == tasks[0]
        assert read_labels(run) == []
        work.give(2.0)
        with pytest.raises(ValueError, match="outside the scale"):
            work.give(11.0)
        with pytest.raises(UserError, match="in use by another process"), Labelling(run, "ada", tasks):
            pass
    with Labelling(run, "ada", tasks) as work:
        assert work.current == tasks[1]
        assert work.undo(), "also what an earlier session gave"
        assert work.current == tasks[0]
    with pytest.raises(UserError, match="letters, digits"):
        Labelling(run, "../ada", tasks)


def test_an_answer_made_anew_is_put_before_the_labeller_again(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run")
    before = rating_tasks(known_run(), {}, RUBRICS, 4, 1, "ada")
    with Labelling(run, "ada", before) as work:
        for value in (1.0, 2.0, 3.0, 4.0):
            work.give(value)
    after = [replace(task, record_sha="anew") if task == before[1] else task for task in before]
    with Labelling(run, "ada", after) as work:
        assert (work.done, work.current) == (3, after[1])
        work.give(9.0)
        assert work.current is None
    with Labelling(run, "ada", after) as work:
        assert work.undo(), "the last label is that of the new answer"
        assert work.current == after[1]
    assert sorted(label.value or 0 for label in read_labels(run)) == [1.0, 3.0, 4.0]


def test_labels_by_two_rubrics_stand_beside_each_other(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run")
    ten = rating_tasks(known_run(), {}, RUBRICS, 2, 1, "ada")
    five = [replace(task, high=5.0, version="own") for task in ten]
    for tasks in (ten, five):
        with Labelling(run, "ada", tasks) as work:
            assert work.done == 0
            work.give(5.0)
            work.give(4.0)
    with Labelling(run, "ada", ten) as work:
        assert work.done == 2
        work.undo()
    assert sorted((label.value, label.high) for label in read_labels(run)) == [(4.0, 5.0), (5.0, 5.0), (5.0, 10.0)]

"""Packing: full requests, order per group, what is retried and when, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.core.packing import TOO_LARGE, Limits, Packing, Request, Result
from processor.ports import Refusal

LIMITS = Limits(
    entries_max=10,
    bytes_max=1_000,
    retryable=frozenset({"InternalFailure", "ThrottlingException"}),
    flying_max=4,
)
OK = Result()
SLOW = Result("ThrottlingException", "slow down")
BAD = Result("MalformedDetail", "not JSON")


def distinct(n: int, size: int = 1) -> Packing:
    """n entries of n groups."""
    return Packing(LIMITS, [size] * n, [str(i) for i in range(n)])


def indices(requests: list[Request]) -> list[tuple[int, ...]]:
    return [request.indices for request in requests]


# ---- packing --------------------------------------------------------------------------------


def test_requests_are_filled_by_count_in_order():
    assert indices(distinct(25).commands(0)) == [
        tuple(range(10)),
        tuple(range(10, 20)),
        tuple(range(20, 25)),
    ]


def test_requests_are_filled_by_bytes_up_to_the_limit_exactly():
    packing = Packing(LIMITS, [400, 600, 1, 999, 1], list("abcde"))
    assert indices(packing.commands(0)) == [(0, 1), (2, 3), (4,)]


def test_no_more_requests_fly_at_once_than_allowed():
    packing = distinct(100)
    flying = packing.commands(0)
    assert len(flying) == 4
    assert packing.commands(0) == []
    assert packing.wake_at() is None
    packing.on_answer(flying[0], [OK] * 10, 0, 0.5)
    assert indices(packing.commands(0)) == [tuple(range(40, 50))]


def test_an_empty_batch_is_done():
    packing = distinct(0)
    assert packing.is_done
    assert packing.commands(0) == []
    assert packing.wake_at() is None


def test_an_entry_over_the_limit_is_refused_at_once_and_holds_nobody_up():
    packing = Packing(LIMITS, [1, 1_001, 1], ["a", "a", "a"])
    for expected in (0, 2):
        (request,) = packing.commands(0)
        assert request.indices == (expected,)
        packing.on_answer(request, [OK], 0, 0.5)
    assert packing.is_done
    ((index, code, message),) = [(r.index, r.code, r.message) for r in packing.refusals]
    assert (index, code) == (1, TOO_LARGE)
    assert "1001 bytes" in message
    assert "1000" in message


def test_an_entry_of_exactly_the_limit_goes_and_one_byte_more_is_refused():
    packing = Packing(LIMITS, [1_000, 1_001], ["a", "b"])
    assert indices(packing.commands(0)) == [(0,)]
    assert [refusal.index for refusal in packing.refusals] == [1]


def test_the_repr_tells_the_person_on_call_where_the_entries_are():
    packing = Packing(LIMITS, [1] * 3, ["a", "a", "b"])
    packing.commands(0)
    assert repr(packing) == (
        "<Packing behind=1 ready=0 flying=1 waiting=0 refused=0 failures in a row=0>"
    )


# ---- order ----------------------------------------------------------------------------------


def test_a_group_is_in_one_request_at_a_time_and_once():
    packing = Packing(LIMITS, [1] * 4, ["a", "a", "b", "a"])
    (first,) = packing.commands(0)
    assert first.indices == (0, 2)
    packing.on_answer(first, [OK, OK], 0, 0.5)
    assert indices(packing.commands(0)) == [(1,)]


def test_nothing_overtakes_a_predecessor_that_waits_for_a_retry():
    packing = Packing(LIMITS, [1] * 4, ["a", "b", "a", "b"])
    (first,) = packing.commands(0)
    packing.on_answer(first, [SLOW, OK], now=0, draw=0.5)
    (other,) = packing.commands(0)
    assert other.indices == (3,)  # b goes on, a's second stays behind
    packing.on_answer(other, [OK], 0, 0.5)
    assert packing.commands(0.049) == []
    assert packing.wake_at() == 0.05
    (retry,) = packing.commands(0.05)
    assert retry.indices == (0,)
    packing.on_answer(retry, [OK], 0.05, 0.5)
    assert indices(packing.commands(0.05)) == [(2,)]


def test_a_refused_predecessor_lets_its_group_go_on():
    packing = Packing(LIMITS, [1, 1], ["a", "a"])
    (first,) = packing.commands(0)
    packing.on_answer(first, [BAD], 0, 0.5)
    assert packing.refusals == [Refusal(0, "MalformedDetail", "not JSON")]
    assert indices(packing.commands(0)) == [(1,)]


# ---- answers --------------------------------------------------------------------------------


def test_answers_are_matched_by_index_and_only_what_may_be_retried_is():
    packing = distinct(3)
    (request,) = packing.commands(0)
    packing.on_answer(request, [OK, SLOW, BAD], now=0, draw=0.0)
    assert packing.refusals == [Refusal(2, "MalformedDetail", "not JSON")]
    assert indices(packing.commands(0)) == [(1,)]


def test_an_answer_of_another_length_settles_nothing():
    packing = distinct(3)
    (request,) = packing.commands(0)
    packing.on_answer(request, [], now=0, draw=0.0)  # a body that was cut parses as {}
    assert not packing.is_done
    assert indices(packing.commands(0)) == [(0, 1, 2)]


def test_an_answer_that_throttles_every_entry_pauses_as_a_failure_does():
    packing = distinct(50)
    first, *others = packing.commands(0)
    packing.on_answer(first, [SLOW] * 10, now=0, draw=0.5)
    for request in others:
        packing.on_answer(request, [SLOW] * 10, now=0, draw=0.5)
    assert packing.commands(0) == []
    (probe,) = packing.commands(packing.wake_at() or 0)
    assert probe.indices == tuple(range(10))


def test_a_malformed_request_goes_entry_by_entry_until_the_culprit_is_alone():
    packing = distinct(4)
    (request,) = packing.commands(0)
    packing.on_rejected(request, "ValidationException", "no")
    singles = packing.commands(0)
    assert indices(singles) == [(0,), (1,), (2,), (3,)]
    for single in singles:
        if single.indices == (2,):
            packing.on_rejected(single, "ValidationException", "really no")
        else:
            packing.on_answer(single, [OK], 0, 0.5)
    assert packing.is_done
    assert packing.refusals == [Refusal(2, "ValidationException", "really no")]


# ---- pauses ---------------------------------------------------------------------------------


def test_while_the_target_is_down_one_request_at_a_time_tries_again():
    packing = distinct(40)
    now = 0.0
    for request in packing.commands(now):
        packing.on_failure(request, now, draw=0.5)
    for _ in range(5):
        assert packing.commands(now) == []
        now = packing.wake_at() or 0
        (probe,) = packing.commands(now)
        assert packing.wake_at() is None  # nothing to do before its answer
        packing.on_failure(probe, now, draw=0.5)
    now = packing.wake_at() or 0
    (probe,) = packing.commands(now)
    packing.on_answer(probe, [OK] * 10, now, draw=0.5)
    assert len(packing.commands(now)) == 3  # it is back: the others go at once


def test_pauses_double_from_a_tenth_of_a_second_to_ten_seconds():
    packing = distinct(1)
    now, pauses = 0.0, []
    for _ in range(10):
        (request,) = packing.commands(now)
        packing.on_failure(request, now, draw=1.0)
        pauses.append(round((packing.wake_at() or 0) - now, 3))
        now = packing.wake_at() or 0
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_an_outage_of_days_overflows_nothing():
    packing = distinct(1)
    now = 0.0
    for _ in range(2_000):
        (request,) = packing.commands(now)
        packing.on_failure(request, now, draw=1.0)
        now = packing.wake_at() or 0
    assert packing.commands(now)


def test_an_answer_to_a_request_that_is_not_in_flight_is_our_own_mistake():
    packing = distinct(1)
    (request,) = packing.commands(0)
    packing.on_answer(request, [OK], 0, 0.5)
    with pytest.raises(AssertionError, match="not in flight"):
        packing.on_answer(request, [OK], 0, 0.5)


# ---- targets that promise no order --------------------------------------------------------


def test_where_order_does_not_matter_a_group_fills_its_requests():
    packing = Packing(replace(LIMITS, together=True), [1] * 25, ["one"] * 25)
    (first,) = packing.commands(0)
    assert first.indices == tuple(range(10))
    assert packing.commands(0) == [], "the group is under way"
    packing.on_answer(first, [OK] * 9 + [SLOW], 0, 0.5)
    assert packing.commands(0) == [], "nothing overtakes what waits for a retry"
    (second,) = packing.commands(packing.wake_at())
    assert second.indices == tuple(range(9, 19))


def test_entries_of_a_group_that_were_not_taken_wait_for_each_other() -> None:
    """With b's entry in the request there is no room for the second of a's."""
    limits = replace(LIMITS, together=True)
    packing = Packing(limits, [400, 600, 397, 400, 1], ["c", "b", "a", "a", "a"])
    first, second = packing.commands(0)
    assert (first.indices, second.indices) == ((0, 1), (2, 3, 4))
    packing.on_answer(first, [OK, SLOW], 0, 0.5)
    packing.on_answer(second, [SLOW, SLOW, OK], 0, 0.5)
    (third,) = packing.commands(packing.wake_at())
    assert third.indices == (1, 2)
    packing.on_answer(third, [OK, OK], 1, 0.5)
    (fourth,) = packing.commands(1)
    assert fourth.indices == (3,)


# ---- any target -----------------------------------------------------------------------------

FATES = st.sampled_from(["ok", "slow", "bad", "failure", "garbled", "rejected"])


@pytest.mark.parametrize("together", [False, True])
@given(
    entries=st.lists(
        st.tuples(st.integers(1, 1_200), st.sampled_from("abcde"), st.lists(FATES, max_size=3))
    ),
    order=st.randoms(use_true_random=False),
)
def test_whatever_the_target_does_each_entry_is_settled_once_and_in_order(together, entries, order):
    """Each entry meets its fates, then is taken; requests are answered in any order."""
    limits = replace(LIMITS, together=together)
    sizes, groups = [size for size, _, _ in entries], [group for _, group, _ in entries]
    fates = [list(reversed(fates)) for _, _, fates in entries]
    packing = Packing(limits, sizes, groups)
    taken: list[int] = []
    sent: list[int] = []
    flying: list[Request] = []
    now = 0.0
    while not packing.is_done:
        commands = packing.commands(now)
        sent += (i for request in commands for i in request.indices)
        flying += commands
        assert len(flying) <= LIMITS.flying_max
        under_way = [groups_of(request, groups) for request in flying]
        assert sum(map(len, under_way)) == len(set().union(*under_way))
        assert together or all(
            len(of) == len(r.indices) for of, r in zip(under_way, flying, strict=True)
        )
        if not flying:
            now = max(now, packing.wake_at() or 0)
            continue
        request = flying.pop(order.randrange(len(flying)))
        assert 1 <= len(request.indices) <= LIMITS.entries_max
        assert sum(sizes[i] for i in request.indices) <= LIMITS.bytes_max
        answer(packing, request, fates, taken, now)
    refused = [refusal.index for refusal in packing.refusals]
    assert sorted(taken + refused) == list(range(len(entries)))
    in_order = list(dict.fromkeys(sent)) if together else taken
    for group in set(groups):
        mine = [i for i in in_order if groups[i] == group]
        assert mine == sorted(mine)
    assert all(
        sizes[i] > LIMITS.bytes_max for i in set(refused) if i not in taken and not entries[i][2]
    )


def groups_of(request: Request, groups: list[str]) -> set[str]:
    return {groups[i] for i in request.indices}


def answer(
    packing: Packing, request: Request, fates: list[list[str]], taken: list[int], now: float
) -> None:
    """What the target makes of a request: the first entry's fate decides over all of it."""
    mine = [fates[i].pop() if fates[i] else "ok" for i in request.indices]
    if mine[0] == "failure":
        packing.on_failure(request, now, 0.5)
    elif mine[0] == "garbled":
        packing.on_answer(request, [OK] * (len(mine) + 1), now, 0.5)
    elif mine[0] == "rejected":
        packing.on_rejected(request, "ValidationException", "")
    else:
        results = [{"slow": SLOW, "bad": BAD}.get(fate, OK) for fate in mine]
        taken += [i for i, result in zip(request.indices, results, strict=True) if result is OK]
        packing.on_answer(request, results, now, 0.5)

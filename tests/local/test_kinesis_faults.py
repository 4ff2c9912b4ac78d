"""The list of faults: matched by operation and shard, used up in order."""

import pytest

from processor.local.kinesis_faults import PENDING_MAX, Fault, Faults


def test_the_oldest_match_is_used_up_first() -> None:
    faults = Faults()
    faults.add(Fault("throttle", "PutRecords"), Fault("cut", "GetRecords"), Fault("reset"))
    taken = [faults.take("GetRecords", None) for _ in range(3)]
    assert [fault and fault.kind for fault in taken] == ["cut", "reset", None]
    assert [fault.kind for fault in faults.pending] == ["throttle"]


def test_a_fault_of_one_shard_leaves_the_others_alone() -> None:
    faults = Faults()
    faults.add(Fault("empty", "GetRecords", shard="a"))
    assert faults.take("GetRecords", "b") is None
    assert faults.take("ListShards", None) is None
    assert faults.take("GetRecords", "a") is not None


def test_times_repeats_a_fault() -> None:
    faults = Faults()
    faults.add(Fault("internal", times=2))
    assert [faults.take("X", None) is not None for _ in range(3)] == [True, True, False]


def test_clearing_forgets_them_all() -> None:
    faults = Faults()
    faults.add(Fault("internal", times=9))
    faults.clear()
    assert len(faults) == 0


def test_the_list_is_bounded() -> None:
    faults = Faults()
    faults.add(Fault("internal", times=PENDING_MAX))
    with pytest.raises(ValueError, match="clear"):
        faults.add(Fault("internal"))

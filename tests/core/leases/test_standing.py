"""How long what we hold is surely ours: what a heartbeat gives, and what a lapse takes."""

from processor.core.leases.commands import Timing
from processor.core.leases.standing import Standing


def test_after_a_lapse_a_heartbeat_alone_gives_no_validity() -> None:
    standing = Standing("a", Timing())
    assert standing.on_alive(0.0, 0.1)
    assert not standing.on_alive(20.0, 20.1)
    assert standing.valid_for_s(20.1) <= 0
    standing.on_reread(20.0)
    assert standing.valid_for_s(20.2) <= 0, "the rows were read before we knew of the lapse"
    standing.on_reread(20.2)
    assert standing.valid_for_s(20.3) > 0

"""Who counts as dead: only time that we watched is held against a silent worker."""

from processor.core.leases.liveness import Liveness
from processor.core.leases.rows import WorkerRow


def test_time_between_reads_far_apart_does_not_count() -> None:
    liveness = Liveness(dead_after_s=12, gap_max_s=3)
    for at in (0, 2, 4, 9, 11, 13):  # nobody looked from 4 to 9
        liveness.on_read([WorkerRow("z", 7)], at)
    assert not liveness.is_dead("z", 13)
    for at in (15, 17, 19, 21):
        liveness.on_read([WorkerRow("z", 7)], at)
    assert liveness.is_dead("z", 21)

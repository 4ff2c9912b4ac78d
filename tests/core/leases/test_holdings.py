"""Who holds what by the worker rows: what is told of it, and that each change shows."""

from processor.core.leases.holdings import Holdings
from processor.core.leases.rows import Held, WorkerRow


def test_the_version_rises_with_every_change_and_with_nothing_else() -> None:
    holdings, versions = Holdings("me"), []
    for held in ((Held("a", 1),), (Held("a", 1),), (Held("a", 1), Held("b", 1)), ()):
        holdings.set(WorkerRow("z", 7, held=held))
        versions.append(holdings.version)
    assert versions[0] > 0, "the first word of a worker that was unknown"
    assert versions[0] == versions[1] < versions[2] < versions[3]
    holdings.drop("z")
    assert holdings.version > versions[3]

"""A KCL lease table in DynamoDB, read only: one Scan, as KCL itself does."""

from __future__ import annotations

from typing import Any

from processor.aws_errors import FOREIGN, Subject, translated
from processor.errors import Outage

PAGES_MAX = 1_000  # of 1 MB each: beyond any lease table


class KclTable:
    """The table of that name."""

    def __init__(self, client: Any, table: str) -> None:
        self.table = table
        self._client = client
        create = "correct its name: a KCL application's table is called as its applicationName"
        self._subject = Subject("dynamodb", f"KCL table {table}", create, "correct its name")

    def __repr__(self) -> str:
        return f"<KclTable {self.table}>"

    async def items(self) -> list[dict[str, Any]]:
        """All items, their values plain; raises Unavailable, Throttled or Outage."""
        found: list[dict[str, Any]] = []
        more: dict[str, Any] = {}
        for _ in range(PAGES_MAX):
            answer = await self._scan(**more)
            found.extend(
                {name: _plain(value) for name, value in item.items()} for item in answer["Items"]
            )
            if "LastEvaluatedKey" not in answer:
                return found
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        raise Outage("dynamodb", "Scan", f"table {self.table}: no end after {PAGES_MAX} pages")

    async def _scan(self, **more: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = await self._client.scan(
                TableName=self.table, ConsistentRead=True, **more
            )
        except FOREIGN as error:
            raise translated(error, self._subject, "Scan") from error
        if "Items" not in answer:
            raise Outage("dynamodb", "Scan", f"table {self.table}: an answer without Items")
        return answer


def _plain(value: dict[str, Any]) -> Any:
    """A number as int where it is one; what KCL doesn't use here as it came."""
    ((kind, content),) = value.items()
    if kind == "N":
        return int(content) if content.lstrip("-").isdigit() else float(content)
    return sorted(content) if kind in ("SS", "NS") else content

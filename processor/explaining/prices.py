"""What AWS asks in us-east-1, as of March 2026; other regions ask up to half as much more.

Only what grows with a rule: source stream, reads, tables and machines are not in it.
"""

from __future__ import annotations

AS_OF = "us-east-1, March 2026"
# https://aws.amazon.com/eventbridge/pricing: custom events, each of up to 64 KiB (ours have 1).
USD_PER_MILLION_EVENTS = 1.00
# https://aws.amazon.com/kinesis/data-streams/pricing, provisioned: units of 25 KiB a record.
USD_PER_MILLION_PUT_UNITS = 0.014
PUT_UNIT_BYTES = 25 * 1024
DAYS_A_MONTH = 30

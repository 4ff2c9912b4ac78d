"""The asyncio shell: performs what the ring decides. Knows ports, never an adapter."""

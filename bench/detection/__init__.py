"""How good detection is: on NAB, on made series, over a series' life, and what it costs."""

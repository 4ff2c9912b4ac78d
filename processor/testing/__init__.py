"""`processor test`: a pipeline file tried on cases written beside it, by the production code.

times      how times are written: ISO 8601, or +10m from the file's start
suite      what a file of cases holds, as frozen values
shape      its keys: reader and JSON Schema use them
reading    text → Suite, or everything that is wrong with it
records    reads what is sent            events   reads what is expected
running    a case's steps through both stages: no sockets, no clock, no chance
comparing  what was told against what was expected: the differences
report     differences for people, and for machines
"""

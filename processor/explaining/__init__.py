"""`processor explain`: what each rule of a pipeline file does, in words, and what it costs.

windows    a rule's windows and panes in words: when it tells, what is late
words      the rest of a rule in words: scope, figures, keys, detectors
memory     bytes a key and at the bound, by what the plug-ins declare
traffic    events and records of the merge stream a day, by a rate and a number of keys
prices     what AWS asks for those
account    all of it, as values
report     as text
"""

"""What each detector of a pipeline file would have raised on a recording, at each sensitivity.

ladder   the settings that a detector is tried at
trying   all of them in one pass over the recording: what was opened, and when
drawing  the series to show, with their band and alarms
page     all of it as one HTML page
"""

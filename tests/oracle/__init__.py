"""What another engine says of windows and panes, and ours on the same cases."""

"""Programs that tests run in a process of their own; the last line that each prints is its result as JSON."""

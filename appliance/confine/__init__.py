"""What a process gives up, and what shows that it runs: sandbox, beacon, watchdog."""

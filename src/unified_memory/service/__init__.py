"""What can be done: every operation once, for every interface. No HTTP, no SQL, no environment, no timers."""

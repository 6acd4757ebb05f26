"""The only code that changes state: clock, hooks, sessions, and what they keep."""

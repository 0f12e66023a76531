"""Checks: pure functions of facts and lab that say what holds, what does not, and why."""
